"""How far a long job is, on standard error."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.progress import ProgressColumn, TaskID

    from ..model.loading.child import Progress


@contextmanager
def progress_bars(*, quiet: bool, rate: bool = False) -> Iterator["Progress"]:
    """A bar for every stage, or a line where standard error is no terminal.

    Args:
        quiet: Neither.
        rate: Say how many are done per second, too.
    """
    if quiet:
        yield lambda stage, done, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        *([_rate_column()] if rate else []),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    tasks: dict[str, TaskID] = {}

    def report(stage: str, done: int, total: int | None) -> None:
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage, total=total)
            if not console.is_terminal:
                typer.echo(f"{stage} …", err=True)
        bars.update(tasks[stage], completed=done, total=total)

    with bars:
        yield report


def _rate_column() -> "ProgressColumn":
    """How many are done per second."""
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.1f}/s")

    return Rate()
