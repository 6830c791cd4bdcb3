"""From a corpus to a store: shard by shard, going on where the last run stopped."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..attribution import Scalar
from ..errors import ArgumentError, ArtifactError
from ..explaining import Reader
from ..explaining.lenses.file import lens_file
from ..explaining.plan import check_question
from ..explaining.start import start_names
from ..model.decoder import Decoder
from ..model.reinitialised import reinitialised
from ..model.source import versions
from ..model.weights import weights_sha256
from ..readout.lens import AbstractLens
from ..records import Target
from ..stages import stage
from .budget import BATCH_MEMORY, MOST_TEXTS, Budget
from .explainer import Explainer, Null
from .items import Columns, Item
from .read import AbstractInput, open_input
from .selection import Selection, Shards, Survey
from .store import Store
from .summary import write_summary

Progress = Callable[[str, int, int | None], None]
"""Told a stage, how many of its rows are done, and how many there are."""


def nobody(stage: str, done: int, total: int | None) -> None:
    """Tell nobody."""


@dataclass(frozen=True, eq=False)
class Job:
    """A corpus, and what is asked of every row: all that the result depends on.

    Attributes:
        source: Where rows come from.
        columns: Which columns hold what.
        selection: Which rows are taken.
        reader: How states are read.
        question: What is explained where a row does not say: arguments of `explain`.
        strict: Whether what cannot be verified fails, or is flagged.
        null: What this is a null of: "targets" asks every row for another's target,
            "weights" takes a model of the same class with weights drawn anew.
        seed: What the null is drawn from.
        memory: Bytes that a batch may take beside the weights, by estimate.
        most_texts: Texts per batch at most.
    """

    source: AbstractInput
    columns: Columns = field(default_factory=Columns)
    selection: Selection = field(default_factory=Selection)
    reader: Reader = field(default_factory=Reader)
    question: Mapping[str, Any] = field(default_factory=dict)
    strict: bool = True
    null: Null = "none"
    seed: int = 0
    memory: int = BATCH_MEMORY
    most_texts: int = MOST_TEXTS

    @cached_property
    def survey(self) -> Survey:
        """What the input holds; every line is looked at once.

        Raises:
            IGLensError: If it cannot be read, or holds no rows.
        """
        return Survey.of(self.source)

    @cached_property
    def shards(self) -> Shards:
        """The input, cut up.

        Raises:
            IGLensError: If it cannot be read, or columns are missing.
        """
        columns = self.columns.found_in(self.survey.types)
        return Shards(self.source, self.survey.n_lines, columns, self.selection)

    def on(self, decoder: Decoder) -> "PlannedJob":
        """The job for a model: everything is checked, and nothing is run.

        Raises:
            IGLensError: If something does not fit.
        """
        check_question(decoder, **self.question)
        settings = self._settings(decoder)
        explainer = self.explainer(decoder, str(settings["settings_sha256"]))
        return PlannedJob(self.shards, explainer, settings)

    def explainer(self, decoder: Decoder, settings: str) -> Explainer:
        """What is done with every row.

        Args:
            decoder: The model.
            settings: Hash of the settings.

        Raises:
            IGLensError: If something does not fit the model.
        """
        if self.null == "weights":
            decoder = reinitialised(decoder, self.seed)
        return Explainer(
            decoder,
            self.reader.check(decoder),
            self.question,
            Budget.of(decoder, self.memory, self.most_texts),
            self.types,
            settings,
            self.strict,
            self.null == "targets",
            self.seed,
        )

    @property
    def types(self) -> dict[str, str]:
        """Type of every column of metadata."""
        used = self.shards.columns.used
        return {n: t for n, t in self.survey.types.items() if n not in used}

    def _settings(self, decoder: Decoder) -> dict[str, Any]:
        """What `run.json` says: all that the rows depend on."""
        shards = self.shards
        settings = {
            "model": identity(decoder),
            "versions": versions(),
            "input": {
                "name": Path(self.source.name).name,
                "fingerprint": self.source.fingerprint(),
                "n_lines": shards.n_lines,
                "columns": asdict(shards.columns),
                "metadata": self.types,
            },
            "selection": asdict(self.selection),
            "question": {n: _said(v) for n, v in sorted(self.question.items())},
            "reading": self._reading(decoder),
            "null": {"of": self.null, "seed": self.seed},
            "batches": {"memory": self.memory, "texts": self.most_texts},
        }
        text = json.dumps(settings, sort_keys=True)
        return {
            **settings,
            "settings_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "n_rows": shards.n_rows,
            "n_shards": len(shards),
        }

    def _reading(self, decoder: Decoder) -> dict[str, Any]:
        """How states are read, in words."""
        reader = self.reader
        baselines = start_names(reader.baseline)
        if None in baselines or isinstance(reader.lens, AbstractLens):
            raise ArgumentError(
                "A run is gone on with by its settings, which hold names and files "
                "only: give baseline and lens as such."
            )
        lens = lens_file(decoder, reader.lens)
        precision = reader.precision
        return {
            "unit": decoder.unit(reader.unit),
            "baseline": baselines,
            "lens": "logit" if lens is None else lens.name,
            "lens_sha256": None if lens is None else weights_sha256(lens),
            "estimator": reader.estimator.name,
            "precision": None if precision is None else str(precision),
            "tolerance": float(reader.tolerance),
            "by": reader.by,
            "top": reader.top,
            "strict": self.strict,
        }


def identity(decoder: Decoder) -> dict[str, Any]:
    """Which model it is, wherever it lies."""
    return {n: v for n, v in asdict(decoder.info).items() if n != "path"}


@dataclass(frozen=True, eq=False)
class PlannedJob:
    """A job that fits its model.

    Attributes:
        shards: The input, cut up.
        explainer: What is done with every row.
        settings: What `run.json` says.
    """

    shards: Shards
    explainer: Explainer
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What a run did.

    Attributes:
        path: The store.
        n_rows: Rows of the input that are in it now.
        n_total: Rows of the input that a whole run has.
        n_tokens: Explained tokens in it.
        n_failures: Rows that could not be explained.
        n_found: Rows that were there before.
        damaged: Shards that were there, and were no good.
        seconds: Time this run took, without loading.
    """

    path: Path
    n_rows: int
    n_total: int
    n_tokens: int
    n_failures: int
    n_found: int
    damaged: tuple[str, ...]
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether every row of the input is in the store, explained or failed."""
        return self.n_rows == self.n_total


def run(
    decoder: Decoder,
    source: str | Path | AbstractInput,
    output: str | Path,
    *,
    columns: Columns | None = None,
    selection: Selection | None = None,
    part: tuple[int, int] = (1, 1),
    reader: Reader | None = None,
    strict: bool = True,
    null: Null = "none",
    seed: int = 0,
    memory: int = BATCH_MEMORY,
    most_texts: int = MOST_TEXTS,
    progress: Progress = nobody,
    **question: Any,
) -> Outcome:
    """Explain every row of a corpus, into a folder.

    The same call again goes on where the last one stopped, whatever stopped it. A row
    that cannot be explained is recorded with its reason; the others go on.

    Args:
        decoder: The model.
        source: A file (.jsonl, .csv, .tsv, .parquet, .txt), a dataset of Hugging Face,
            "builtin" for the prompts of this package, or an input of your own.
        output: The folder.
        columns: Which columns hold what.
        selection: Which rows are taken.
        part: `(i, n)`: only every n-th shard, from the i-th, counted from 1; n such
            calls, on one machine or several that share the folder, make the whole.
        reader: How states are read.
        strict: Whether a row that cannot be verified fails, or is flagged.
        null: "targets" to ask every row for another's target, "weights" to take a
            model of the same class with weights drawn anew.
        seed: What the null is drawn from.
        memory: Bytes that a batch may take beside the weights, by estimate.
        most_texts: Texts per batch at most.
        progress: Told how far it is.
        question: What is explained where a row does not say; see `explain`.

    Raises:
        OutputError: If the folder holds something else, or cannot be written to.
        IGLensError: If what is asked does not fit the model or the input.
    """
    given = source if isinstance(source, AbstractInput) else open_input(str(source))
    job = Job(
        given,
        columns or Columns(),
        selection or Selection(),
        reader or Reader(),
        question,
        strict,
        null,
        seed,
        memory,
        most_texts,
    )
    planned = job.on(decoder)
    store = Store.open(Path(output), planned.settings)
    return fill(store, planned, part, progress)


def fill(
    store: Store,
    job: PlannedJob,
    part: tuple[int, int] = (1, 1),
    progress: Progress = nobody,
) -> Outcome:
    """Compute the shards that a store lacks, and write what is made of them."""
    start = time.perf_counter()
    pending, damaged = missing(store, part)
    total = job.shards.n_rows
    found = total - sum(job.shards.size(number) for number in pending)
    done = found
    progress("Rows", done, total)

    def more(n: int) -> None:
        nonlocal done
        done += n
        progress("Rows", done, total)

    rows = job.shards.items(pending)
    while (shard := _read(rows)) is not None:
        number, items = shard
        content = job.explainer.shard(items, more)
        with stage("write"):
            store.write(number, content)
    return finish(store, found, damaged, time.perf_counter() - start)


@stage("read")
def _read(rows: Iterator[tuple[int, list[Item]]]) -> tuple[int, list[Item]] | None:
    """The rows of the next shard."""
    return next(rows, None)


def missing(store: Store, part: tuple[int, int]) -> tuple[list[int], tuple[str, ...]]:
    """Shards that are to be computed, and what was wrong with those that were there.

    Raises:
        ArgumentError: If there is no such part.
    """
    which, of = part
    if not 1 <= which <= of:
        raise ArgumentError(f"Part {which}/{of}: parts are counted from 1/{of}.")
    pending, damaged = [], []
    for number in range(which - 1, store.n_shards, of):
        try:
            there = store.shard(number) is not None
        except ArtifactError as error:
            there = False
            damaged.append(str(error))
        if there:
            store.clear(number)
        else:
            pending.append(number)
    return pending, tuple(damaged)


@stage("write")
def finish(
    store: Store, n_found: int, damaged: Sequence[str], seconds: float
) -> Outcome:
    """Write what is made of the shards, and say what there is.

    Args:
        store: The folder.
        n_found: Rows that were there before.
        damaged: What was wrong with shards that were there.
        seconds: How long the rest took.

    Raises:
        IGLensError: If a shard is damaged, or something cannot be written.
    """
    n_failures = store.write_failures()
    n_rows = n_tokens = 0
    for shard in store.shards():
        n_rows += shard.n_items
        n_tokens += shard.n_rows
    outcome = Outcome(
        store.path,
        n_rows,
        int(store.settings["n_rows"]),
        n_tokens,
        n_failures,
        n_found,
        tuple(damaged),
        seconds,
    )
    if outcome.complete:
        store.tidy()
        if n_rows > n_found or not (store.path / "summary.json").exists():
            write_summary(store)
    return outcome


def _said(value: Any) -> Any:
    """An argument as settings hold it."""
    if isinstance(value, Scalar | Target):
        raise ArgumentError(
            "A run is gone on with by its settings, which hold names only: give "
            "targets as text."
        )
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value
