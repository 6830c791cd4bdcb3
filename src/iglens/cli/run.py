"""`iglens run`: a corpus, explained into a folder."""

import json
import re
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ArgumentError, IGLensError
from . import options as o
from .groups import Asked, Loading, Read, Typed
from .loading import Model
from .progress import progress_bars
from .talk import Profile, quiet_libraries

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..corpus import Outcome
    from ..corpus.ray_engine import Cluster
    from ..corpus.run import Job
    from ..model.decoder import Decoder

_INPUT, _HOW = "What is read", "How it is run"


def _input(*names: str, help: str, min: int | None = None) -> typer.models.OptionInfo:
    """An option about the input."""
    return typer.Option(*names, help=help, min=min, rich_help_panel=_INPUT)


def _how(*names: str, help: str, min: int | None = None) -> typer.models.OptionInfo:
    """An option about the run."""
    return typer.Option(*names, help=help, min=min, rich_help_panel=_HOW)


Input = Annotated[
    str,
    typer.Argument(
        metavar="INPUT",
        help="File of prompts (.jsonl, .csv, .tsv, .parquet, .txt), dataset of Hugging "
        "Face, or builtin for the prompts of this package.",
    ),
]
Folder = Annotated[
    Path, typer.Option("-o", "--output", help="Folder to write, or to go on with.")
]
PromptColumn = Annotated[
    str | None, _input(help="Column of prompts; usually prompt or text.")
]
TargetColumn = Annotated[
    str | None, _input(help="Column of next tokens to explain; usually target.")
]
AnswerColumn = Annotated[
    str | None, _input(help="Column of continuations to explain; usually answer.")
]
IdColumn = Annotated[str | None, _input(help="Column of names; usually id.")]
Split = Annotated[str | None, _input(help="Split of a dataset that has several.")]
Config = Annotated[str | None, _input(help="Configuration of a dataset.")]
Limit = Annotated[int | None, _input(help="So many rows at most.", min=1)]
Shuffle = Annotated[
    bool, _input("--shuffle", help="Take rows in a random order, drawn from --seed.")
]
Part = Annotated[
    str,
    _how(
        "--shard",
        help="Only part i of n, as 1/4; n such commands on one folder make the whole.",
    ),
]
ShardRows = Annotated[
    int, _how(help="Rows per file: what is lost, at most, if it is killed.", min=1)
]
BatchSize = Annotated[int, _how(help="Texts that run at once, at most.", min=1)]
BatchMemory = Annotated[
    int, _how(help="MiB that they may take beside the weights, by estimate.", min=1)
]
Nulls = Annotated[
    str,
    _how(
        "--null",
        help="Make a null to compare with: targets (each row is asked for another "
        "one's), weights (a model of the same class, weights drawn anew), or none.",
    ),
]
Engine = Annotated[str, _how(help="local, or ray for a cluster (needs the extra ray).")]
Concurrency = Annotated[
    int, _how(help="Models loaded at once, with --engine ray.", min=1)
]
Cpus = Annotated[float, _how(help="Processors of each model, with --engine ray.")]
Gpus = Annotated[
    float, _how(help="GPUs of each model, with --engine ray; 0.5 shares one.")
]


def run_command(
    source: Input,
    output: Folder,
    model: Model = None,
    *,
    asked: Asked,
    read: Read,
    loading: Loading,
    typed: Typed,
    prompt_column: PromptColumn = None,
    target_column: TargetColumn = None,
    answer_column: AnswerColumn = None,
    id_column: IdColumn = None,
    split: Split = None,
    config: Config = None,
    limit: Limit = None,
    shuffle: Shuffle = False,
    part: Part = "1/1",
    shard_rows: ShardRows = 256,
    batch_size: BatchSize = 64,
    batch_memory: BatchMemory = 1024,
    null: Nulls = "none",
    engine: Engine = "local",
    concurrency: Concurrency = 1,
    num_cpus: Cpus = 1,
    num_gpus: Gpus = 0,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    profile: o.ShowProfile = False,
    debug: o.Debug = False,
) -> None:
    """Explain every row of a corpus, into a folder that survives being stopped.

    A row says what is explained by its columns target or answer; of others the model's
    own continuation is. The same command again goes on where the last one stopped:
    nothing is computed twice. A row that cannot be explained is recorded with its
    reason and counted. `iglens summary` makes statistics of the folder.
    """
    which = parse_part(part)
    _check(typed, engine, null)
    timer = Profile(enabled=profile)
    quiet_libraries()
    with timer.stage("import"):
        from ..corpus import Columns, Selection
        from ..corpus.ray_engine import Cluster
        from ..corpus.read import open_input
        from ..corpus.run import Job, fill
        from ..corpus.store import Store, check_place

    check_place(output)
    job = Job(
        open_input(source, split=split, config=config),
        Columns(prompt_column, target_column, answer_column, id_column),
        Selection(limit, shuffle, asked.seed if shuffle else 0, shard_rows),
        read.reader,
        {**_question(asked), "layers": read.layers},
        read.strict,
        null,  # type: ignore[arg-type]  # checked above
        asked.seed if null != "none" else 0,
        batch_memory << 20,
        batch_size,
    )
    with timer.stage("read"):
        _announce(job.shards.n_rows, quiet=quiet)  # refused before the model
    if engine == "ray":
        outcome = _on_ray(
            job,
            partial(loading.decoder, model, quiet=True),
            output,
            which,
            Cluster(concurrency, num_cpus, num_gpus),
            quiet=quiet,
        )
    else:
        with timer.stage("load"):
            decoder = loading.decoder(model, quiet=quiet)
        with timer.stage():
            planned = job.on(decoder)
            store = Store.open(output, planned.settings)
        with timer.stage(), progress_bars(quiet=quiet, rate=True) as progress:
            outcome = fill(store, planned, which, progress)
    timer.report()
    _show(outcome, as_json=as_json, quiet=quiet)


def _on_ray(
    job: "Job",
    load: "Callable[[], Decoder]",
    output: Path,
    which: tuple[int, int],
    cluster: "Cluster",
    *,
    quiet: bool,
) -> "Outcome":
    """The run on a cluster."""
    from ..corpus.ray_engine import fill_on_ray, settings_on_ray
    from ..corpus.store import Store

    store = Store.open(output, settings_on_ray(job, load, cluster))
    with progress_bars(quiet=quiet, rate=True) as progress:
        return fill_on_ray(job, load, store, cluster, which, progress)


def _announce(n_rows: int, *, quiet: bool) -> None:
    """How much there is to do."""
    if not quiet:
        typer.echo(f"{n_rows:,} rows", err=True)


def parse_part(text: str) -> tuple[int, int]:
    """Which part of how many.

    Raises:
        ArgumentError: If it is none.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    which, of = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= which <= of:
        raise ArgumentError(
            f"`--shard` is {text!r}; say which part of how many, as 1/4 to 4/4."
        )
    return which, of


def _check(typed: Typed, engine: str, null: str) -> None:
    """Refuse what does not go together, before anything is loaded."""
    if engine not in ("local", "ray"):
        raise ArgumentError(f"`--engine` is {engine!r}; known are local, ray.")
    if null not in ("none", "targets", "weights"):
        raise ArgumentError(f"`--null` is {null!r}; known are none, targets, weights.")
    if "diagnostics" in typed:
        raise ArgumentError(
            "`--diagnostics` are of single results: a run keeps levels and credits. "
            "Use `iglens explain` on the rows that matter."
        )
    only_ray = {"concurrency", "num_cpus", "num_gpus"} & typed
    if engine == "local" and only_ray:
        named = " and ".join(f"`--{n.replace('_', '-')}`" for n in sorted(only_ray))
        raise ArgumentError(f"{named} need `--engine ray`.")


def _question(asked: Asked) -> dict[str, object]:
    """What is explained where a row does not say."""
    seed = asked.seed if asked.sample else 0  # which is of the shuffle otherwise
    given = replace(asked, seed=seed).arguments
    return {name: value for name, value in given.items() if value is not None}


def _show(outcome: "Outcome", *, as_json: bool, quiet: bool) -> None:
    """What there is now on stdout, the rest on stderr."""
    if as_json:
        found = {**asdict(outcome), "complete": outcome.complete}
        typer.echo(json.dumps(found, default=str, ensure_ascii=False))
    else:
        typer.echo(_sentence(outcome))
    if not quiet:
        for reason in outcome.damaged:
            typer.echo(f"Warning: {reason} It was computed anew.", err=True)
        if outcome.n_failures:
            typer.echo(
                f"Warning: {outcome.n_failures:,} rows could not be explained; "
                f"{outcome.path / 'failures.jsonl'} says why.",
                err=True,
            )
        if outcome.complete and outcome.n_tokens and not as_json:
            typer.echo(f"Statistics: iglens summary {outcome.path}", err=True)
    if outcome.complete and not outcome.n_tokens:
        raise IGLensError(
            f"No row could be explained; {outcome.path / 'failures.jsonl'} says why."
        )


def _sentence(outcome: "Outcome") -> str:
    """What there is now."""
    new = outcome.n_rows - outcome.n_found
    rate = f", {new / outcome.seconds:,.1f} rows/s" if new else ""
    there = f" ({outcome.n_found:,} were there already)" if outcome.n_found else ""
    whole = "" if outcome.complete else f" of {outcome.n_total:,}"
    return (
        f"{outcome.path}: {outcome.n_rows:,}{whole} rows{there}, "
        f"{outcome.n_tokens:,} explained tokens, {outcome.n_failures:,} failures{rate}."
    )
