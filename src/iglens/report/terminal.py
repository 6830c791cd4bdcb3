"""The token x layer map for a terminal: numbers first, colour only on top of them.

Every cell shows its sign and its size as text, so nothing is lost without colour, in a
pipe, or to a colour-blind reader. Blue adds, orange takes (Okabe-Ito).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from jaxtyping import Float
from rich.console import Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from ..records import Attribution, Segment
from .text import format_credit, format_level
from .visible import marked

TALL_ROWS = 24
"""Up to so many rows the map shows numbers, layers down; then one line per token."""

NEGLIGIBLE = 0.005
"""Layers in which no credit reaches this share of the largest are drawn as one."""

_LABEL, _CELL = 11, 8
_GAIN, _PALE_GAIN = "rgb(0,114,178)", "rgb(86,180,233)"
_LOSS = _PALE_LOSS = "rgb(230,159,0)"


@dataclass(frozen=True)
class _Line:
    """One line of the map: neighbouring segments drawn together."""

    segments: tuple[Segment, ...]
    credits: Float[np.ndarray, " rows"]

    @property
    def label(self) -> str:
        """Where it starts and ends."""
        after, layer = self.segments[0].after, self.segments[-1].layer
        return f"{'base' if after is None else after} → {layer}"


def render(attribution: Attribution, width: int) -> RenderableType:
    """The map, as wide as the terminal."""
    if attribution.n_rows > TALL_ROWS:
        return _compact(attribution, width)
    columns = max(1, (width - _LABEL) // _CELL)
    lines = _lines(attribution)
    bands = [
        _tall(
            attribution, lines, range(start, min(start + columns, attribution.n_rows))
        )
        for start in range(0, attribution.n_rows, columns)
    ]
    return Group(*bands)


def _lines(attribution: Attribution) -> list[_Line]:
    """Segments from first to last; runs in which nothing happens become one line."""
    limits = NEGLIGIBLE * _scales(attribution)[:, None]
    quiet = (np.abs(attribution.credits) < limits).all(0)
    lines = []
    for is_quiet, group in groupby(range(len(quiet)), key=lambda i: bool(quiet[i])):
        members = list(group)
        runs = [members] if is_quiet else [[i] for i in members]
        for run in runs:
            lines.append(
                _Line(
                    tuple(attribution.segments[i] for i in run),
                    attribution.credits[:, run].sum(1),
                )
            )
    return lines


def _tall(attribution: Attribution, lines: list[_Line], rows: Sequence[int]) -> Table:
    """Layers down, tokens across, as numbers."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("layers", justify="right", width=_LABEL - 1, no_wrap=True)
    for row in rows:
        title = Text(marked(attribution.targets[row].name, _CELL - 1))
        table.add_column(title, justify="right", width=_CELL - 1, no_wrap=True)
    units, levels = attribution.units, attribution.levels
    first, last = (
        [_level(levels[r, point], units[r]) for r in rows] for point in (0, -1)
    )
    table.add_row("baseline", *first, style="dim")
    scales = _scales(attribution)
    for line in lines:
        cells = [_cell(float(line.credits[r]), scales[r], units[r]) for r in rows]
        table.add_row(line.label, *cells)
    table.add_row("= readout", *last, style="bold")
    return table


def _scales(attribution: Attribution) -> Float[np.ndarray, " rows"]:
    """The largest credit among the rows of the same unit, for every row."""
    largest = np.nanmax(np.abs(attribution.credits), axis=1, initial=0.0)
    units = np.array(attribution.units)
    together = units[:, None] == units
    scales = np.where(together, largest, 0.0).max(1, initial=0.0)
    return np.where(scales == 0, 1.0, scales)


def _level(value: float, unit: str) -> str:
    """A level for a cell."""
    return format_level(value, unit) if np.isfinite(value) else f"!{value}"


def _cell(value: float, scale: float, unit: str) -> Text:
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
        return Style(color=_PALE_GAIN if share > 0 else _PALE_LOSS)
    if share > 0:
        return Style(color="white", bgcolor=_GAIN)
    return Style(color="black", bgcolor=_LOSS)


def _compact(attribution: Attribution, width: int) -> RenderableType:
    """One line per token: its level, its onset, and one glyph per layer."""
    room = max(8, width - 36)
    step = -(-len(attribution.segments) // room)
    shown = attribution.coarsen(attribution.layers[step - 1 :: step])
    scales = _scales(shown)
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
            _level(shown.final[row], shown.units[row]),
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
            yield "▁▂▃▄▅▆▇█"[min(7, int(share * 8))], Style(color=_PALE_GAIN)
        else:
            yield "-=≡"[min(2, int(-share * 3))], Style(color=_PALE_LOSS)
