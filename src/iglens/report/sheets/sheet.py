"""What a page says, before it is HTML or Markdown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..page.checks import Check

if TYPE_CHECKING:
    from ..charts import Chart


@dataclass(frozen=True)
class Drawing:
    """A chart on a page.

    Attributes:
        title: Its heading.
        chart: Makes it, in the theme of that name.
    """

    title: str
    chart: "Callable[[str], Chart]"


@dataclass(frozen=True)
class Numbers:
    """A table on a page.

    Attributes:
        title: Its heading.
        heads: Names of the columns.
        lines: The cells; the first of each names its line.
        left: Names of the columns that are words.
        shut: Whether HTML folds it away.
    """

    title: str
    heads: Sequence[str]
    lines: Sequence[Sequence[str]]
    left: tuple[str, ...] = ()
    shut: bool = False


@dataclass(frozen=True)
class Sheet:
    """A page; all of it is plain text.

    Attributes:
        question: The headline.
        model: Whose numbers these are.
        says: The answer in a sentence, and what else is to be said first.
        drawings: The charts.
        numbers: The tables.
        checks: What was verified.
        reading: How to read it, point by point.
        card: The choices it rests on: name, value, meaning.
        origin: Where the numbers come from.
        warnings: What a reader must see.
    """

    question: str
    model: str
    says: tuple[str, ...]
    drawings: tuple[Drawing, ...]
    numbers: tuple[Numbers, ...]
    checks: tuple[Check, ...]
    reading: tuple[str, ...]
    card: tuple[tuple[str, str, str], ...]
    origin: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...] = ()
