"""Credits through a lens, taken apart: what the block wrote, what the lens changed."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..records import Attribution
from ..records.difference import Difference
from .cells import CELL, Line, credit_cell, label_width, lines_of, scales_of
from .terminal import TALL_ROWS
from .text import format_credit, format_level, target_name
from .visible import marked, visible

SIDES = ("block", "lens")
"""Titles of the two columns of a row."""


def lens_sentences(attribution: Attribution) -> list[str]:
    """Per row what blocks and lens made of its change; none without a lens."""
    if attribution.lens == "logit":
        return []
    return [_sentence(attribution, row) for row in range(attribution.n_rows)]


def difference_sentences(difference: Difference) -> list[str]:
    """Per row what blocks and lens made of the difference; none without a lens."""
    if difference.a.lens == "logit":
        return []
    found = []
    for row in range(difference.n_rows):
        unit, wrote = difference.units[row], float(difference.writes[row].sum())
        if np.isfinite(wrote):
            whole = float(difference.credits[row].sum())
            found.append(
                f"{target_name(difference.targets[row])} through the "
                f"{visible(difference.a.lens)} lens: {format_credit(wrote, unit)} of a "
                f"difference of {format_credit(whole, unit)} the blocks wrote, "
                f"{format_credit(whole - wrote, unit)} the lens changed."
            )
    return found


def _sentence(attribution: Attribution, row: int) -> str:
    """Both sums of a row, and where its level went beyond the final one."""
    unit = attribution.units[row]
    wrote, moved = (
        float(side[row].sum())
        for side in (attribution.writes, attribution.translations)
    )
    start = f"{target_name(attribution.targets[row])} through the "
    start += f"{visible(attribution.lens)} lens: "
    if np.isfinite(wrote):
        change = format_credit(wrote + moved, unit)
        text = f"of its change of {change} the blocks wrote "
        text += f"{format_credit(wrote, unit)}, the lens changed "
        text += format_credit(moved, unit)
    else:
        text = "what the blocks wrote of it is not known"
    flags = attribution.flags
    over = [f.point for f in flags if (f.row, f.kind) == (row, "overshoot")]
    for point in over:
        beyond = abs(float(attribution.levels[row, point] - attribution.final[row]))
        layer = attribution.layers[point - 1] if point else 0
        text += f"; it passes its final value by {format_level(beyond, unit)} at "
        text += f"layer {layer}"
    return f"{start}{text}."


def render_split(attribution: Attribution, width: int) -> RenderableType | None:
    """Two columns a row: layers down, and sums that add up to the change of the level.

    Args:
        attribution: The result.
        width: Of the terminal.

    Returns:
        None without a lens, and for more rows than a table of numbers has.
    """
    if attribution.lens == "logit" or attribution.n_rows > TALL_ROWS:
        return None
    sides = (attribution.writes, attribution.translations)
    units = attribution.units * 2
    both = np.concatenate(sides)
    scales = scales_of(both, units)
    lines = lines_of(attribution.segments, np.nan_to_num(both), scales)
    per_band = max(1, (width - label_width(lines)) // (2 * CELL))
    bands = [
        range(at, min(at + per_band, attribution.n_rows))
        for at in range(0, attribution.n_rows, per_band)
    ]
    return Group(
        Text("Of each credit: what the block wrote, and what the lens changed"),
        *(_band(attribution, lines, scales, rows) for rows in bands),
    )


def _band(
    attribution: Attribution,
    lines: Sequence[Line],
    scales: Float[np.ndarray, " sides"],
    rows: Sequence[int],
) -> Table:
    """Layers down, both sides of some rows across."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    label = label_width(lines) - 1
    table.add_column("layers", justify="right", width=label, no_wrap=True)
    columns = []
    for row in rows:
        name = marked(attribution.targets[row].name, CELL - 1)
        for title, side in zip(
            SIDES, (attribution.writes, attribution.translations), strict=True
        ):
            heading = Text(f"{name}\n{title}")
            table.add_column(heading, justify="right", width=CELL - 1, no_wrap=True)
            columns.append((side[row], float(scales[row]), attribution.units[row]))
    for line in lines:
        at = list(line.members)
        table.add_row(
            line.label, *(_cell(float(c[at].sum()), s, u) for c, s, u in columns)
        )
    totals = (_total(float(credits.sum()), unit) for credits, _, unit in columns)
    table.add_row("= all", *totals, style="bold")
    return table


def _cell(value: float, scale: float, unit: str) -> Text:
    """A credit, or that there is none to know."""
    if np.isnan(value):
        return Text("n/a", style="dim")
    return credit_cell(value, scale, unit)


def _total(value: float, unit: str) -> str:
    """The sum of a column."""
    return "n/a" if np.isnan(value) else format_credit(value, unit)
