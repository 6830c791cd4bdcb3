"""Two runs, as a page: where they part, both waterfalls, every number."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from ...records.difference import Difference
from .. import difference as text
from ..charts import Chart
from ..charts.words import row_labels, segment_labels
from ..page.checks import Check, method_card
from ..text import exact_credit, format_level, target_name
from ..through_lens import difference_sentences
from .common import MOST_ROWS, NOT_CAUSES, and_more, readout_check, sides_origin
from .sheet import Drawing, Numbers, Sheet

PAIRED = 4
"""Rows whose waterfalls are drawn beside the map: those that differ most."""


def difference_sheet(found: Difference) -> Sheet:
    """The page of a difference."""
    order = np.argsort(-np.nan_to_num(np.abs(found.final)), kind="stable").tolist()
    said = [text.sentence(found, row) for row in order[:MOST_ROWS]]
    verdict = " ".join(text.verdict(found).split())
    return Sheet(
        question="Where do two runs part?",
        model=" and ".join(
            dict.fromkeys(side.provenance.model.id for side in (found.a, found.b))
        ),
        says=(
            *said,
            *and_more(found.n_rows - len(said)),
            *text.sides(found),
            *difference_sentences(found),
        ),
        drawings=tuple(_drawings(found)),
        numbers=tuple(_numbers(found)),
        checks=(
            readout_check((found.a, found.b)),
            _sum(found),
        ),
        reading=(
            verdict,
            "b less a, everywhere: blue is more in b, orange more in a.",
            NOT_CAUSES,
            *(f"Note: {note}" for note in found.notes),
        ),
        card=tuple(method_card(found.a)),
        origin=sides_origin(found.a.provenance, found.b.provenance),
        warnings=tuple(dict.fromkeys((*found.a.warnings, *found.b.warnings))),
    )


def _drawings(found: Difference) -> Iterator[Drawing]:
    """The map of several rows, and the pairs of those that differ most."""
    if found.n_rows > 1:
        yield Drawing("All tokens", partial(_map, found))
    sizes = np.nan_to_num(np.abs(found.credits)).max(axis=1, initial=0.0)
    most = sorted(np.argsort(-sizes, kind="stable")[:PAIRED].tolist())
    for row in most:
        name = f"{target_name(found.targets[row])} at {found.a.positions[row]}"
        yield Drawing(f"{name}, both ways", partial(_pair, found, row))


def _map(found: Difference, theme: str) -> Chart:
    """All rows."""
    return found.figure("map", theme=theme)


def _pair(found: Difference, row: int, theme: str) -> Chart:
    """One row."""
    return found.figure("waterfall", row=row, theme=theme)


def _numbers(found: Difference) -> Iterator[Numbers]:
    """One line a token, then every layer of the first few."""
    names = row_labels(found.a)
    heads = ("token", "unit", "a", "b", "b - a", "layers beyond rounding")
    lines = [
        [
            names[row],
            found.units[row],
            format_level(float(found.a.final[row]), found.units[row]),
            format_level(float(found.b.final[row]), found.units[row]),
            exact_credit(float(found.final[row]), found.units[row]),
            str(int(found.beyond_noise[row].sum())),
        ]
        for row in range(found.n_rows)
    ]
    yield Numbers("Tokens", heads, lines, ("token", "unit"))
    for row in range(min(found.n_rows, MOST_ROWS)):
        yield Numbers(
            f"{names[row]}, layer by layer",
            ("layer", "a", "b", "b - a", "beyond rounding"),
            _layers(found, row),
            shut=True,
        )


def _layers(found: Difference, row: int) -> list[list[str]]:
    """First levels, every credit, last levels."""
    unit = found.units[row]
    ends = [
        [
            name,
            *(format_level(float(s.levels[row, at]), unit) for s in (found.a, found.b)),
            exact_credit(float(found.levels[row, at]), unit),
            "",
        ]
        for name, at in (("start", 0), ("= readout", -1))
    ]
    columns = (found.a.credits, found.b.credits, found.credits)
    middle = [
        [
            name,
            *(exact_credit(float(one[row, at]), unit) for one in columns),
            "yes" if found.beyond_noise[row, at] else "no",
        ]
        for at, name in enumerate(segment_labels(found.segments))
    ]
    return [ends[0], *middle, ends[1]]


def _sum(found: Difference) -> Check:
    """Whether the difference adds up."""
    worst = float(np.nan_to_num(np.abs(found.completeness)).max(initial=0.0))
    observed = found.a.estimator == "observed"
    return Check(
        "adds up",
        worst <= 1e-6 if observed else None,
        f"within {worst:.1g}",
        "The difference of two tables that add up adds up.",
    )
