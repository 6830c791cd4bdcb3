"""Two runs side by side: what is compared, where they part, and the table of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..records import Attribution
from ..records.difference import Difference
from .cells import (
    CELL,
    Line,
    credit_cell,
    label_width,
    level_cell,
    lines_of,
    scales_of,
)
from .terminal import TALL_ROWS
from .text import between, format_credit, format_level, heading, target_name
from .through_lens import difference_sentences
from .visible import marked, visible

EXCERPT = 60
"""Characters of a prompt that tell one side from the other."""


def summary(difference: Difference) -> str:
    """What is compared, a sentence per row, and what it rests on."""
    lines = [choices(difference), *sides(difference)]
    lines += [sentence(difference, row) for row in range(difference.n_rows)]
    lines += [*difference_sentences(difference), verdict(difference)]
    lines += [f"Note: {note}" for note in difference.notes]
    return "\n".join(lines)


def choices(difference: Difference) -> str:
    """What both results have in common, in one line."""
    return "b less a · " + heading(difference.a).partition(" · ")[2]


def sides(difference: Difference) -> tuple[str, str]:
    """What tells the two results apart, one line each."""
    a, b = _words(difference.a), _words(difference.b)
    differ = [i for i in range(len(a)) if a[i] != b[i]] or [0]
    one, other = (" · ".join(side[i] for i in differ) for side in (a, b))
    return f"a: {one}", f"b: {other}"


def _words(side: Attribution) -> tuple[str, ...]:
    """Model, dtype, weights and text of a result."""
    model = side.provenance.model
    text = side.provenance.prompt or "".join(side.token_texts)
    shown = visible(text.replace("\n", "↵"))
    return (
        heading(side).partition(" · ")[0],
        f"revision {(model.revision or 'unknown')[:12]}",
        model.dtype,
        f"weights {(model.weights_sha256 or 'unknown')[:12]}",
        shown if len(shown) <= EXCERPT else f"…{shown[-EXCERPT:]}",
    )


def sentence(difference: Difference, row: int) -> str:
    """Where one row's levels part."""
    unit, final = difference.units[row], difference.final[row]
    ends = [
        format_level(float(s.final[row]), unit) for s in (difference.a, difference.b)
    ]
    start = f"{target_name(difference.targets[row])}: {ends[0]} → {ends[1]}"
    if unit != difference.unit:
        start += f" {visible(unit)}"
    credits = difference.credits[row]
    if not np.isfinite(credits).all():
        return f"{start}; some levels are not finite, so no layer can be named."
    if not difference.beyond_noise[row].any():
        return f"{start}; no layer differs beyond rounding."
    best = int((credits if credits.sum() >= 0 else -credits).argmax())
    where = between(difference.segments[best])
    return (
        f"{start}; {format_credit(credits[best], unit)} of the difference of "
        f"{format_credit(final, unit)} lies {where}."
    )


def verdict(difference: Difference) -> str:
    """Whether anything differs, and what rounding can do."""
    sums = np.abs(difference.completeness).max(initial=0.0)
    floors = dict.fromkeys(
        f"{floor:.1g} ({visible(unit)})" if np.isfinite(floor) else "unknown"
        for floor, unit in zip(difference.noise_floor, difference.units, strict=True)
    )
    differ = int(difference.beyond_noise.any(axis=0).sum())
    found = "No layer differs beyond rounding."
    if differ:
        found = (
            f"{differ} of {len(difference.segments)} segments differ beyond rounding."
        )
    return (
        f"{found} Combined noise floor of a level: {', '.join(floors)}.\n"
        f"Differences add up within {sums:.1g}."
    )


@dataclass(frozen=True)
class _Column:
    """What one column of the table shows of a row.

    Attributes:
        title: Two lines.
        first: The baseline.
        cells: The credits, one per line.
        last: The readout.
    """

    title: str
    first: str
    cells: list[Text]
    last: str


def render(difference: Difference, width: int) -> RenderableType:
    """The table, as wide as the terminal: both sides where there is room for them."""
    if difference.n_rows > TALL_ROWS:
        return _compact(difference)
    scales = scales_of(difference.credits, difference.units)
    lines = lines_of(difference.segments, difference.credits, scales)
    room = max(1, (width - label_width(lines)) // CELL)
    columns = []
    for row in range(difference.n_rows):
        shown = _columns(difference, row, lines, float(scales[row]))
        columns += shown if 3 * difference.n_rows <= room else shown[-1:]
    bands = [
        _band(columns[at : at + room], lines) for at in range(0, len(columns), room)
    ]
    return Group(*bands)


def _columns(
    difference: Difference, row: int, lines: Sequence[Line], scale: float
) -> list[_Column]:
    """Both sides of a row, and their difference."""
    unit, beyond = difference.units[row], difference.beyond_noise[row]
    name = marked(difference.targets[row].name, CELL - 1)
    found = []
    for title, side in (("a", difference.a), ("b", difference.b)):
        largest = float(scales_of(side.credits[[row]], [unit])[0])
        cells = _cells(side.credits[row], lines, largest, unit)
        first, last = (level_cell(float(side.levels[row, at]), unit) for at in (0, -1))
        found.append(_Column(f"{name}\n{title}", first, cells, last))
    cells = _cells(difference.credits[row], lines, scale, unit)
    for line, cell in zip(lines, cells, strict=True):
        if not beyond[list(line.members)].any():
            cell.style = "dim"
    first, last = (_change(float(difference.levels[row, at]), unit) for at in (0, -1))
    return [*found, _Column(f"{name}\nb - a", first, cells, last)]


def _cells(
    credits: Float[np.ndarray, " segments"],
    lines: Sequence[Line],
    scale: float,
    unit: str,
) -> list[Text]:
    """The credits of every line."""
    return [
        credit_cell(float(credits[list(line.members)].sum()), scale, unit)
        for line in lines
    ]


def _change(value: float, unit: str) -> str:
    """A difference of levels."""
    if not np.isfinite(value):
        return f"!{value}"
    text = format_credit(value, unit)
    return text if text.strip("+-0.") else "·"


def _band(columns: Sequence[_Column], lines: Sequence[Line]) -> Table:
    """Layers down, columns across."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    label = label_width(lines) - 1
    table.add_column("layers", justify="right", width=label, no_wrap=True)
    for column in columns:
        title = Text(column.title)
        table.add_column(title, justify="right", width=CELL - 1, no_wrap=True)
    table.add_row("baseline", *(column.first for column in columns), style="dim")
    for at, line in enumerate(lines):
        table.add_row(line.label, *(column.cells[at] for column in columns))
    table.add_row("= readout", *(column.last for column in columns), style="bold")
    return table


def _compact(difference: Difference) -> Table:
    """One line per row: its levels, and the segment in which most of it lies."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for title in ("at a", "at b", "token", "a", "b", "b - a", "most", "layers"):
        table.add_column(title, justify="left" if title == "token" else "right")
    for row in range(difference.n_rows):
        a, b, unit = difference.a, difference.b, difference.units[row]
        best = int(np.abs(np.nan_to_num(difference.credits[row])).argmax())
        line = lines_of(
            difference.segments[best : best + 1], np.ones((1, 1)), np.ones(1)
        )
        credit = difference.credits[row, best]
        dim = "" if difference.beyond_noise[row, best] else "dim"
        table.add_row(
            str(a.positions[row]),
            str(b.positions[row]),
            Text(marked(difference.targets[row].name, 10)),
            level_cell(float(a.final[row]), unit),
            level_cell(float(b.final[row]), unit),
            _change(float(difference.final[row]), unit),
            Text(_change(float(credit), unit), style=dim),
            line[0].label,
        )
    return table
