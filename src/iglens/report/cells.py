"""What maps of credits are drawn with: lines of layers, cells of numbers, colours.

Every cell shows its sign and its size as text, so nothing is lost without colour, in a
pipe, or to a colour-blind reader. Blue adds, orange takes (Okabe-Ito).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from jaxtyping import Float
from rich.style import Style
from rich.text import Text

from ..records import Segment
from .text import format_credit, format_level

NEGLIGIBLE = 0.005
"""Layers in which no credit reaches this share of the largest are drawn as one."""

LABEL, CELL = 11, 8
"""Widths of the first column, at least, and of the others."""

LONGEST_LABEL = 24
"""Its width at most."""

GAIN, PALE_GAIN = "rgb(0,114,178)", "rgb(86,180,233)"
LOSS = PALE_LOSS = "rgb(230,159,0)"


@dataclass(frozen=True)
class Line:
    """One line of a map: neighbouring segments drawn together.

    Attributes:
        label: Where it starts and ends.
        members: Indices of the segments.
    """

    label: str
    members: tuple[int, ...]


def lines_of(
    segments: Sequence[Segment],
    credits: Float[np.ndarray, "rows segments"],
    scales: Float[np.ndarray, " rows"],
) -> list[Line]:
    """Segments from first to last; runs in which nothing happens become one line."""
    silent = (np.abs(credits) < NEGLIGIBLE * scales[:, None]).all(0)
    lines: list[Line] = []
    for is_quiet, group in groupby(_blocks(segments), lambda b: bool(silent[b].all())):
        blocks = list(group)
        members = [i for block in blocks for i in block]
        for run in [members] if is_quiet else [[i] for i in members]:
            lines.append(Line(_label(segments, run), tuple(run)))
    return lines


def _blocks(segments: Sequence[Segment]) -> list[list[int]]:
    """Segments of the same layer together."""
    every = range(len(segments))
    return [list(group) for _, group in groupby(every, lambda i: segments[i].layer)]


def _label(segments: Sequence[Segment], run: Sequence[int]) -> str:
    """Where some neighbouring segments start and end."""
    first, last = segments[run[0]], segments[run[-1]]
    if len(run) == 1 and first.is_part:
        return f"{first.layer} {first.part}"
    return f"{'base' if first.after is None else first.after} → {last.layer}"


def label_width(lines: Sequence[Line]) -> int:
    """Width of the column of labels, with the space after it."""
    return min(LONGEST_LABEL, max([LABEL, *(len(line.label) + 1 for line in lines)]))


def scales_of(
    credits: Float[np.ndarray, "rows segments"], units: Sequence[str]
) -> Float[np.ndarray, " rows"]:
    """The largest credit among the rows of the same unit, for every row."""
    largest = np.nanmax(np.abs(credits), axis=1, initial=0.0)
    names = np.array(units)
    together = names[:, None] == names
    scales = np.where(together, largest, 0.0).max(1, initial=0.0)
    return np.where(scales == 0, 1.0, scales)


def level_cell(value: float, unit: str) -> str:
    """A level for a cell."""
    return format_level(value, unit) if np.isfinite(value) else f"!{value}"


def credit_cell(value: float, scale: float, unit: str) -> Text:
    """A signed number on a colour that says the same."""
    if not np.isfinite(value):
        return Text("!nan", style="reverse")
    text = format_credit(value, unit)
    if not text.strip("+-0."):
        return Text("·", style="dim")
    return Text(text, style=_shade(value / scale))


def _shade(share: float) -> Style:
    """Blue for more, orange for less; a filled cell for a quarter of the largest."""
    if abs(share) < 0.02:
        return Style()
    if abs(share) < 0.25:
        return Style(color=PALE_GAIN if share > 0 else PALE_LOSS)
    if share > 0:
        return Style(color="white", bgcolor=GAIN)
    return Style(color="black", bgcolor=LOSS)
