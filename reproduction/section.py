"""What a section of the page is made of."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .subjects import Subject

Row = Sequence[str]


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        facts: Prompts for what is cheap.
        few: Prompts for what takes many passes.
        steps: Numbers of steps of estimators along the hidden states.
        paths: Prompts for the gate path.
        passes: Numbers of steps of what passes through the model at every step.
        seed: Of every sample.
    """

    facts: int
    few: int
    paths: int
    steps: tuple[int, ...]
    passes: tuple[int, ...]
    seed: int = 0


FULL = Size(facts=40, few=3, paths=20, steps=(1, 4, 16, 64), passes=(16, 64))
SHORT = Size(facts=4, few=2, paths=2, steps=(1, 4), passes=(4, 8))


@dataclass(frozen=True)
class Section:
    """One table of the page.

    Attributes:
        name: Of its place in the page.
        columns: What stands above, for a size.
        rows: Measures on one model.
    """

    name: str
    columns: Callable[[Size], Row]
    rows: Callable[[Subject, Size], Iterator[Row]]

    def table(self, subjects: Sequence[Subject], size: Size) -> str:
        """The table, models below each other."""
        columns = self.columns(size)
        lines = [
            f"| model | {' | '.join(columns)} |",
            f"|{'---|' * (len(columns) + 1)}",
        ]
        for subject in subjects:
            print(f"{self.name}: {subject.name}", file=sys.stderr, flush=True)
            for row in self.rows(subject, size):
                assert len(row) == len(columns), (columns, row)
                lines.append(f"| {subject.name} | {' | '.join(row)} |")
        return "\n".join(lines)


def small(value: float) -> str:
    """An error, to two digits.

    Example:
        >>> small(0.000123), small(0.25), small(0.0)
        ('1.2e-04', '0.25', '0')
    """
    if value == 0:
        return "0"
    return f"{value:.1e}" if abs(value) < 0.01 else f"{value:.2f}"


def mean_and_worst(values: Sequence[float]) -> str:
    """Mean size, and the largest in brackets.

    Example:
        >>> mean_and_worst([0.1, -0.3])
        '0.20 (0.30)'
    """
    sizes = np.abs(np.asarray(values))
    return f"{small(float(sizes.mean()))} ({small(float(sizes.max()))})"


def percent(share: float) -> str:
    """A share in percent."""
    return f"{share:.0%}"
