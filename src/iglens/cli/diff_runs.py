"""`iglens diff` of two folders that `iglens run` wrote."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ArgumentError
from .deliver import deliver
from .output import Output
from .progress import progress_bars

if TYPE_CHECKING:
    from rich.console import Console

    from ..records.run_difference import RunDifference

_PANEL = "Two runs over a corpus"

Pair = Annotated[
    str,
    typer.Option(
        help="What pairs tokens of two runs: content (token ids and target), id (name "
        "of the row, and distance from the end of the prompt), or auto (content, and "
        "id if no content is in both).",
        rich_help_panel=_PANEL,
    ),
]
Level = Annotated[
    float,
    typer.Option(help="Share of intervals that are to hold.", rich_help_panel=_PANEL),
]
Bootstrap = Annotated[
    int, typer.Option(help="Replicates of the bootstrap.", rich_help_panel=_PANEL)
]

RUNS_ONLY = {"pair", "level", "bootstrap"}
"""Options that only two runs have."""


def are_runs(a: str, b: str | None) -> bool:
    """Whether two runs are to be compared.

    Raises:
        ArgumentError: If one of them is a run, and the other is none.
    """
    runs = [text is not None and _folder(text, "run.json") for text in (a, b)]
    if all(runs) or (b is not None and _folder(a) and _folder(b)):
        return True
    if any(runs):
        run, other = (a, b) if runs[0] else (b, a)
        raise ArgumentError(
            f"{run} is the folder of a run, which can be compared to another run only"
            + (f", and {other!r} is none." if other is not None else ": name it.")
        )
    return False


def _folder(text: str, inside: str = "") -> bool:
    """Whether there is a folder of this name, with something in it."""
    with suppress(OSError, ValueError):  # too long for a name, or with a null byte
        return (Path(text) / inside).exists() and Path(text).is_dir()
    return False


def diff_runs(
    a: str,
    b: str,
    outputs: Sequence[Output],
    *,
    pair: str,
    level: float,
    bootstrap: int,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compare two runs, token by token."""
    from ..corpus.difference import difference_of_runs
    from ..records.run_difference import RunDifference

    with progress_bars(quiet=quiet) as progress:
        found = difference_of_runs(
            a,
            b,
            pair=pair,
            level=level,
            bootstrap=bootstrap,
            seed=seed,
            progress=progress,
        )
    talk = [f"Note: {note}" for note in found.notes]
    save = RunDifference.save
    deliver(found, outputs, save, _show, talk, as_json=as_json, quiet=quiet)


def _show(found: "RunDifference", console: "Console") -> None:
    """The sentences, then the tables."""
    from rich.text import Text

    from ..report import run_difference as report

    for side in report.sides(found):
        console.print(Text(side, style="italic"))
    console.print()
    for line in report.sentences(found):
        console.print(Text(line))
    for group in found.groups:
        console.print()
        console.print(report.step_table(found, group))
        console.print()
        console.print(report.depth_table(found, group))
    console.print()
    for line in report.footer(found):
        console.print(Text(line, style="dim"))
