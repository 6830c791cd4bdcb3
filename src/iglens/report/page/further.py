"""What a page shows beyond the map, as far as there is room: rivals, parts, heads."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from ...errors import ArgumentError
from ...records import Attribution
from ...records.components import Components
from ..charts.bars import bars, parts, path_parts
from ..charts.inside import heads, sources
from ..charts.trajectory import lines_of_tokens
from ..charts.words import token_labels

Found = TypeVar("Found")

MATTERS = 0.02
"""Layers whose credit is below this share of a row's largest are not opened alone."""

ROOM = 24_000
"""Lines of parts, points of rivals / 10, and cells of maps / 10 that a page holds."""


@dataclass
class Budget:
    """What is left of a page's room; what does not fit is left out, and said to be."""

    left: int = ROOM
    short: bool = False

    def take(self, lines: int) -> bool:
        """Whether so many lines still fit; if so, they are taken."""
        if lines > self.left:
            self.short = True
            return False
        self.left -= lines
        return True


def rivals_of(result: Attribution, budget: Budget) -> list[Any]:
    """Per row the lines of the target and its rivals; None where there are none."""
    found: list[Any] = []
    for row in range(result.n_rows):
        lines = _lines(result, row) if result.top_ids.shape[2] else None
        fits = lines is not None and budget.take(len(lines) // 10)
        found.append(lines if fits else None)
    return found


def _lines(result: Attribution, row: int) -> list[Any] | None:
    """Names with their numbers; None if the target has no probability."""
    try:
        lines = lines_of_tokens(result, row)
    except ArgumentError:
        return None
    names = dict.fromkeys(str(line["name"]) for line in lines)
    return [
        [name, [_short(line["value"]) for line in lines if line["name"] == name]]
        for name in names
    ]


def _short(value: object) -> float | None:
    """A number with few digits."""
    return None if value is None else float(f"{float(str(value)):.4g}")


def parts_of(result: Attribution, budget: Budget) -> dict[str, Any]:
    """Bars and maps of what is inside, per row."""
    inside = result.components
    n_parts = sum(segment.is_part for segment in result.segments)
    if inside is None and not n_parts:
        return {"by": None}
    rows = range(result.n_rows)
    found: dict[str, Any] = {
        "by": "part" if inside is None else inside.by,
        "whole": [_whole(result, row, budget) for row in rows],
    }
    if inside is not None:
        found["layers"] = [_layers(result, inside, row, budget) for row in rows]
        found |= _maps(result, inside, budget)
    return found | {"short": budget.short}


def _whole(result: Attribution, row: int, budget: Budget) -> list[Any] | None:
    """Bars over the whole path."""
    inside = result.components
    pairs = path_parts(result, row) if inside is None else parts(result, inside, row)
    return _bars(result, row, pairs) if budget.take(len(pairs)) else None


def _bars(
    result: Attribution, row: int, pairs: list[tuple[str, float]]
) -> list[list[Any]]:
    """Bars as short lists: name, credit, text."""
    return [
        [line["y"], _short(line["credit"]), line["text"]]
        for line in bars(pairs, result.units[row])
    ]


def _layers(
    result: Attribution, inside: Components, row: int, budget: Budget
) -> dict[int, Any]:
    """Bars of every opened segment that matters, by its index."""
    sizes = np.nan_to_num(np.abs(result.credits[row]))
    found: dict[int, Any] = {}
    for at in np.flatnonzero(sizes >= MATTERS * sizes.max(initial=0.0)).tolist():
        if inside.n_parts[at]:
            pairs = parts(result, inside, row, [at])
            if budget.take(len(pairs)):
                found[at] = _bars(result, row, pairs)
    return found


def _maps(result: Attribution, inside: Components, budget: Budget) -> dict[str, Any]:
    """Heads by layer, and source tokens by layer, where the result has them."""
    rows = range(result.n_rows)
    found: dict[str, Any] = {}
    if inside.by in ("head", "source"):
        found["heads"] = [_cells(heads, result, inside, row, budget) for row in rows]
    if inside.tokens is not None:
        found["sources"] = [_cells(sources, result, inside, r, budget) for r in rows]
        found["tokens"] = token_labels(result.token_texts)
    return found


def _cells(
    read: Callable[[Attribution, Components, int], tuple[list[str], np.ndarray]],
    result: Attribution,
    inside: Components,
    row: int,
    budget: Budget,
) -> dict[str, Any] | None:
    """A small map: its layers, and its numbers column by column."""
    layers, values = read(result, inside, row)
    if not budget.take(values.size // 10):
        return None
    return {
        "layers": layers,
        "values": [
            [_short(x) if np.isfinite(x) else None for x in column]
            for column in values.tolist()
        ],
    }
