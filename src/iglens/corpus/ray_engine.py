"""The same run on a Ray cluster: Ray Data reads, actors hold the model.

What a shard holds follows from the input alone, and its file is written by the store as
ever. So it does not matter which worker makes it, or that one dies: Ray starts another
and gives it the shard anew. All workers must see the input and the folder under the
same paths, as on a shared file system.
"""

import logging
import os
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError, IGLensError, OutputError
from .items import Item
from .run import Job, Outcome, Progress, finish, identity, missing, nobody
from .selection import Shards
from .store import Store

if TYPE_CHECKING:
    from ..model.decoder import Decoder

READERS = 4
"""Passes over the input per model: its reading is cut into so many parts."""

Load = Callable[[], "Decoder"]
"""Loads the model in a worker."""


@dataclass(frozen=True, eq=False)
class Cluster:
    """How much of a cluster a run takes.

    Attributes:
        concurrency: Models loaded at once.
        num_cpus: Processors of each.
        num_gpus: GPUs of each; a fraction shares one.

    Raises:
        ArgumentError: If there would be no model.
    """

    concurrency: int = 1
    num_cpus: float = 1
    num_gpus: float = 0

    def __post_init__(self) -> None:
        """Refuse a cluster of nothing."""
        if self.concurrency < 1:
            raise ArgumentError(
                f"`concurrency` is {self.concurrency}; at least 1 model must be loaded."
            )


class Worker:
    """An actor: a model, and the store it fills."""

    def __init__(self, job: Job, load: Load, path: str) -> None:
        """Load the model, and refuse another than the run was begun with."""
        decoder = load()
        self._store = Store.load(Path(path))
        if (found := identity(decoder)) != self._store.settings["model"]:
            raise OutputError(
                f"A worker loaded another model than the run was begun with: {found}."
            )
        self._explainer = job.explainer(decoder, self._store.digest)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[int]]:
        """Compute some shards; how many rows each has.

        A task that is given again, because its worker died, may find shards of it
        written already.
        """
        counts = []
        for number, data in zip(batch["shard"], batch["items"], strict=True):
            items: list[Item] = pickle.loads(data)  # of our own, from `_Reading`
            if missing(self._store, (int(number) + 1, self._store.n_shards))[0]:
                self._store.write(int(number), self._explainer.shard(items))
            counts.append(len(items))
        return {"rows": counts}


@dataclass(frozen=True, eq=False)
class _Reading:
    """The rows of neighbouring shards, read by whichever machine has time."""

    shards: Shards

    def __call__(self, batch: Mapping[str, Any]) -> Iterator[dict[str, list[Any]]]:
        """One shard after the other, in one pass over the input."""
        wanted = {int(number) for number in batch["shard"]}
        for number, items in self.shards.items(wanted):
            yield {"shard": [number], "items": [pickle.dumps(items)]}


def settings_on_ray(job: Job, load: Load, cluster: Cluster) -> dict[str, Any]:
    """What `run.json` says, found out by a worker: the model need not fit here.

    Args:
        job: What is asked.
        load: Loads the model in a worker.
        cluster: How much to take.

    Raises:
        IGLensError: If something does not fit.
    """
    ray = _connected(cluster)
    remote = ray.remote(num_cpus=cluster.num_cpus, num_gpus=cluster.num_gpus)
    with _in_one_line(ray):
        return ray.get(remote(_settings).remote(job, load))


def _settings(job: Job, load: Load) -> dict[str, Any]:
    """The settings of a job, with its model."""
    return dict(job.on(load()).settings)


def fill_on_ray(
    job: Job,
    load: Load,
    store: Store,
    cluster: Cluster,
    part: tuple[int, int] = (1, 1),
    progress: Progress = nobody,
) -> Outcome:
    """Compute the shards that a store lacks, on a cluster.

    Joins the cluster that is running (`RAY_ADDRESS`, or one on this machine), or starts
    one here.

    Args:
        job: What is asked.
        load: Loads the model in a worker.
        store: The folder.
        cluster: How much to take.
        part: Which shards; see `iglens.corpus.run`.
        progress: Told how far it is.

    Raises:
        ArgumentError: If Ray is not installed.
        OutputError: If workers die again and again.
    """
    start = time.perf_counter()
    pending, damaged = missing(store, part)
    total = job.shards.n_rows
    done = found = total - sum(job.shards.size(number) for number in pending)
    progress("Rows", done, total)
    if pending:
        for rows in _computed(job, load, store, cluster, pending):
            done += rows
            progress("Rows", done, total)
    return finish(store, found, damaged, time.perf_counter() - start)


def _computed(
    job: Job, load: Load, store: Store, cluster: Cluster, pending: list[int]
) -> Iterator[int]:
    """Rows of every shard, as it is done."""
    ray = _connected(cluster)
    workers = min(cluster.concurrency, len(pending))
    readers = min(len(pending), READERS * workers)
    with _a_task_each(ray), _in_one_line(ray):
        numbers = ray.data.from_items(
            [{"shard": number} for number in pending], override_num_blocks=readers
        )
        # readers claim no processor: the models may hold all there are
        read = numbers.map_batches(
            _Reading(job.shards), batch_size=None, num_cpus=0, concurrency=workers
        )
        done = read.map_batches(
            Worker,
            fn_constructor_args=(job, load, str(store.path.resolve())),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers),
            num_cpus=cluster.num_cpus,
            num_gpus=cluster.num_gpus,
        )
        for row in done.iter_rows():
            yield int(row["rows"])


@contextmanager
def _a_task_each(ray: Any) -> Iterator[None]:
    """Make every row that a reader gives a task of its own; print no bars."""
    context = ray.data.DataContext.get_current()
    size, bars = context.target_max_block_size, context.enable_progress_bars
    context.target_max_block_size, context.enable_progress_bars = 1, False
    try:
        yield
    finally:
        context.target_max_block_size, context.enable_progress_bars = size, bars


@contextmanager
def _in_one_line(ray: Any) -> Iterator[None]:
    """Tell what went wrong in a worker as if it had gone wrong here."""
    try:
        yield
    except ray.exceptions.RayError as error:
        if (cause := _own(error, ray.exceptions.RayError)) is not None:
            raise cause from None
        line = str(error).strip().rsplit("\n", 1)[-1]
        raise OutputError(
            f"The cluster gave up ({type(error).__name__}: {line}). What is done is "
            "safe; the same command goes on."
        ) from error


def _own(error: BaseException | None, foreign: type) -> IGLensError | None:
    """The error of ours that Ray wrapped, as often as it did.

    Ray's errors are of the class of what they wrap, too, and hold it as `cause`.
    """
    while error is not None:
        if isinstance(error, IGLensError) and not isinstance(error, foreign):
            return error
        error = getattr(error, "cause", None) or error.__cause__
    return None


def _connected(cluster: Cluster) -> Any:
    """The library, quiet, and in touch with a cluster.

    Raises:
        ArgumentError: If it is not installed, or a model would wait forever.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ArgumentError(
            '`--engine ray` needs Ray: pip install "iglens[ray]".'
        ) from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    _check_room(cluster, ray.nodes())
    return ray


def _check_room(cluster: Cluster, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Refuse models that none of the machines has room for.

    Raises:
        ArgumentError: If there is none, and no autoscaler would start one either.
    """
    if "RAY_ADDRESS" in os.environ:
        return
    wanted = {"CPU": cluster.num_cpus, "GPU": cluster.num_gpus}
    rooms = [node["Resources"] for node in nodes if node["Alive"]]
    if not any(all(r.get(k, 0) >= n for k, n in wanted.items()) for r in rooms):
        most = {k: max(r.get(k, 0) for r in rooms) for k in wanted}
        raise ArgumentError(
            f"A model is to have {cluster.num_cpus:g} CPU and "
            f"{cluster.num_gpus:g} GPU, but a machine here has {most['CPU']:g} and "
            f"{most['GPU']:g}. Ask for less, or join a cluster (RAY_ADDRESS)."
        )
