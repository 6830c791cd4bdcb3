"""How far a job of many runs is."""

from collections.abc import Callable
from dataclasses import dataclass

Progress = Callable[[str, int, int | None], None]
"""Told a stage, how much of it is done, and of how much, if that is known."""


def silent(stage: str, done: int, total: int | None) -> None:
    """Progress that nobody waits for."""


@dataclass(eq=False)
class Stage:
    """Counts runs, and tells of them."""

    progress: Progress
    name: str
    done: int = 0
    total: int | None = None

    def __call__(self, more: int) -> None:
        """So many runs more are done."""
        self.done += more
        self.progress(self.name, self.done, self.total)
