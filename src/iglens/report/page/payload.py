"""What the page is drawn from: plain lists and texts, nothing that could be markup."""

from typing import Any

import numpy as np

from ...records import Attribution, Target
from ..cells import scales_of
from ..charts.words import (
    odd_cells,
    odd_levels,
    row_labels,
    segment_labels,
    start_label,
    unit_words,
)
from ..newcomer import first_sentence
from ..text import format_level, target_name
from ..visible import marked
from .further import Budget, parts_of, rivals_of

MOST_CELLS = 200_000
"""Cells that a page holds; of more, neighbouring layers are added up."""

FEWEST = 8
"""Groups of layers that are left at least."""

DIGITS = 6
"""Significant digits of the numbers on a page; a saved result has all of them."""

TOKEN = 60
"""Characters of a token's text that the strip shows."""


def payload(result: Attribution) -> dict[str, Any]:
    """Everything that the page's charts and tables show."""
    shown_path, group = binned(result)
    budget = Budget()
    units, labels = shown_path.units, row_labels(shown_path)
    scales = scales_of(shown_path.credits, units).tolist()
    return {
        "names": segment_labels(shown_path.segments),
        "start": start_label(result),
        "parts": [segment.is_part for segment in shown_path.segments],
        "group": group,
        "first": first_row(shown_path),
        "mixed": len(set(units)) > 1,
        "observed": result.estimator == "observed",
        "lens": result.lens != "logit",
        "text": [marked(text, TOKEN) for text in result.token_texts],
        "rows": [
            _row(shown_path, row, label, scale)
            for row, (label, scale) in enumerate(zip(labels, scales, strict=True))
        ],
        "levels": rounded(shown_path.levels),
        "credits": rounded(shown_path.credits),
        "writes": rounded(shown_path.writes) if result.lens != "logit" else None,
        "odd": _reasons(odd_cells(shown_path)),
        "oddLevels": _reasons(odd_levels(shown_path)),
        "prunedBelow": shown_path.readout.pruned_below
        if shown_path.pruned.any()
        else 0,
        "rivals": rivals_of(shown_path, budget),
        "inside": parts_of(shown_path, budget),
    }


def first_row(result: Attribution) -> int:
    """The row a page opens with: the first that the layers change at all."""
    moved = (row for row, d in enumerate(result.depths) if d.commit is not None)
    return next(moved, 0)


def binned(result: Attribution) -> tuple[Attribution, int]:
    """The result, on fewer layers if it has too many cells for a page.

    Credits of merged layers are sums, so that nothing is lost but where in the group.

    Returns:
        The result, and how many layers went together.
    """
    cells = result.n_rows * len(result.segments)
    if cells <= MOST_CELLS:
        return result, 1
    whole = result.by_layer
    room = max(FEWEST, MOST_CELLS // result.n_rows)
    group = -(-len(whole.segments) // room)
    kept = whole.layers[::-1][::group]
    return whole.coarsen(kept), group


def rounded(values: np.ndarray) -> list[list[float | None]]:
    """Numbers for a page; None for what is none."""
    return [
        [float(f"{x:.{DIGITS}g}") if np.isfinite(x) else None for x in row]
        for row in values.tolist()
    ]


def _row(result: Attribution, row: int, label: str, scale: float) -> dict[str, Any]:
    """What is said of one row."""
    target, unit = result.targets[row], result.units[row]
    flags = [flag for flag in result.flags if flag.row == row and flag.point is None]
    return {
        "label": label,
        "token": marked(target.name, TOKEN),
        "title": _title(target),
        "name": target_name(target) if target.of_tokens else target.name,
        "at": int(result.positions[row]),
        "inText": target.kind == "token"
        and int(result.positions[row]) < len(result.token_ids)
        and target.ids == (int(result.token_ids[result.positions[row]]),),
        "unit": unit,
        "axis": unit_words(unit),
        "scale": scale,
        "says": first_sentence(result, row),
        "base": format_level(float(result.baseline[row]), unit),
        "final": format_level(float(result.final[row]), unit),
        "depths": _depths(result, row),
        "flags": [f"{f.kind.replace('_', ' ')}: {f.detail}" for f in flags],
    }


def _title(target: Target) -> str:
    """A target for the headline: without the space in front, where words have one."""
    if target.kind != "token" or not target.text.strip():
        return target_name(target)
    return f"\N{LEFT DOUBLE QUOTATION MARK}{marked(target.text.strip(), 40)}" + (
        "\N{RIGHT DOUBLE QUOTATION MARK}"
    )


def _depths(result: Attribution, row: int) -> dict[str, str]:
    """The depths of a row, as a reader wants them."""
    found = result.depths[row]
    named = {
        "half is there to stay": found.commit,
        "half is there first": found.onset_net,
        "half of all movement": found.onset_mass,
        "likeliest token": found.prediction_depth,
    }
    said = {k: "none" if v is None else f"layer {v.upto}" for k, v in named.items()}
    if found.churn is not None:
        said["churn"] = f"{found.churn:.2f}"
    return said


def _reasons(odd: dict[tuple[int, int], str]) -> list[list[Any]]:
    """Marked cells with their reasons."""
    return [[row, at, reason[:300]] for (row, at), reason in odd.items()]
