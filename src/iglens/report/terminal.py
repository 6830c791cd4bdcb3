"""The token x layer map for a terminal: numbers first, colour only on top of them."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float
from rich.console import Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from ..records import Attribution
from ..records.answer import Answer
from .cells import (
    CELL,
    PALE_GAIN,
    PALE_LOSS,
    Line,
    credit_cell,
    label_width,
    level_cell,
    lines_of,
    scales_of,
)
from .text import format_credit, format_level
from .visible import marked

TALL_ROWS = 24
"""Up to so many rows the map shows numbers, layers down; then one line per token."""


def render(attribution: Attribution, width: int) -> RenderableType:
    """The map, as wide as the terminal."""
    if attribution.n_rows > TALL_ROWS:
        return _compact(attribution, width)
    scales = scales_of(attribution.credits, attribution.units)
    lines = lines_of(attribution.segments, attribution.credits, scales)
    columns = max(1, (width - label_width(lines)) // CELL)
    bands = [
        _tall(
            attribution, lines, range(start, min(start + columns, attribution.n_rows))
        )
        for start in range(0, attribution.n_rows, columns)
    ]
    return Group(*bands)


def _tall(attribution: Attribution, lines: list[Line], rows: Sequence[int]) -> Table:
    """Layers down, tokens across, as numbers."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    label = label_width(lines) - 1
    table.add_column("layers", justify="right", width=label, no_wrap=True)
    for row in rows:
        title = Text(marked(attribution.targets[row].name, CELL - 1))
        table.add_column(title, justify="right", width=CELL - 1, no_wrap=True)
    units, levels = attribution.units, attribution.levels
    first, last = (
        [level_cell(levels[r, point], units[r]) for r in rows] for point in (0, -1)
    )
    table.add_row("baseline", *first, style="dim")
    scales = scales_of(attribution.credits, attribution.units)
    for line in lines:
        added = attribution.credits[:, list(line.members)].sum(1)
        cells = [credit_cell(float(added[r]), scales[r], units[r]) for r in rows]
        table.add_row(line.label, *cells)
    table.add_row("= readout", *last, style="bold")
    return table


def render_shares(answer: Answer, width: int) -> RenderableType:
    """The joint probability of an answer: what each layer did to each word, in percent.

    Both margins are exact: columns add up to the last row, words to the last column.
    """
    words = answer.words()
    whole = answer.joint[-1] - answer.joint[0]
    shares = np.array([*(word.credits for word in words), answer.credits.sum(0)])
    shares = 100 * shares / (abs(whole) or 1.0)
    names = [*(marked(word.text, CELL - 1) for word in words), "all"]
    scales = np.full(len(names), max(1.0, float(np.nanmax(np.abs(shares), initial=0))))
    lines = lines_of(answer.subject.segments, shares, scales)
    step = max(1, (width - label_width(lines)) // CELL)
    bands = [range(len(names))[at : at + step] for at in range(0, len(names), step)]
    return Group(
        Text("Shares of the change of the joint probability, in percent"),
        *(_shares(names, shares, lines, scales[0], band) for band in bands),
    )


def _shares(
    names: Sequence[str],
    shares: Float[np.ndarray, "words segments"],
    lines: Sequence[Line],
    scale: float,
    columns: Sequence[int],
) -> Table:
    """Layers down, words across."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    label = label_width(lines) - 1
    table.add_column("layers", justify="right", width=label, no_wrap=True)
    for column in columns:
        table.add_column(
            Text(names[column]), justify="right", width=CELL - 1, no_wrap=True
        )
    for line in lines:
        added = shares[:, list(line.members)].sum(1)
        cells = [credit_cell(float(added[c]), scale, "percent") for c in columns]
        table.add_row(line.label, *cells)
    total = shares.sum(1)
    table.add_row(
        "= all", *(format_credit(total[c], "percent") for c in columns), style="bold"
    )
    return table


def _compact(attribution: Attribution, width: int) -> RenderableType:
    """One line per token: its level, its onset, and one glyph per layer."""
    room = max(8, width - 36)
    step = -(-len(attribution.segments) // room)
    shown = attribution.coarsen(attribution.layers[step - 1 :: step])
    scales = scales_of(shown.credits, shown.units)
    sizes = dict(zip(shown.units, scales.tolist(), strict=True))
    largest = ", ".join(format_level(size, unit) for unit, size in sizes.items())
    key = f"{'▁▂▃▄▅▆▇█'} adds, {'-=≡'} takes, of {largest}"
    if step > 1:
        key += f"; {step} layers a glyph"
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for title in ("at", "token", "level", "half at"):
        table.add_column(title, justify="left" if title == "token" else "right")
    table.add_column(f"layers {shown.layers[0]} to {shown.layers[-1]}", no_wrap=True)
    for row in range(shown.n_rows):
        table.add_row(
            str(shown.positions[row]),
            Text(marked(shown.targets[row].name, 10)),
            level_cell(shown.final[row], shown.units[row]),
            _onset(attribution, row),
            Text.assemble(*_strip(shown.credits[row], scales[row])),
        )
    return Group(table, Text(key, style="dim"))


def _onset(attribution: Attribution, row: int) -> str:
    """First layer from which half of the change stays."""
    commit = attribution.depths[row].commit
    return "-" if commit is None else str(commit.upto)


def _strip(
    credits: Float[np.ndarray, " segments"], scale: float
) -> Iterator[tuple[str, Style]]:
    """One glyph per segment, signed by its shape."""
    for value in credits.tolist():
        share = value / scale
        if not np.isfinite(value):
            yield "!", Style(reverse=True)
        elif abs(share) < 0.02:
            yield "·", Style(dim=True)
        elif share > 0:
            yield "▁▂▃▄▅▆▇█"[min(7, int(share * 8))], Style(color=PALE_GAIN)
        else:
            yield "-=≡"[min(2, int(-share * 3))], Style(color=PALE_LOSS)
