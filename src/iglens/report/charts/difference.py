"""Two runs: where their credits part, and both waterfalls of one token."""

import altair as alt
import numpy as np

from ...errors import ArgumentError
from ...records.difference import Difference
from ..cells import lines_of, scales_of
from ..difference import sentence, sides
from ..text import format_credit, format_level
from .bars import bar_chart
from .heat import DIGITS_UP_TO, Look, heat, symmetric, tiles
from .theme import Chart, Theme, dressed, theme_of, titled
from .waterfall import EACH_UP_TO, Group, steps, waterfall_chart
from .words import (
    ODD_SIGN,
    credit_words,
    finite,
    method_words,
    named,
    odd_cells,
    row_labels,
    segment_labels,
    unit_words,
)

DIFFERENCES = ("map", "waterfall")
"""Pictures of a difference: of all rows, and of one."""


def difference_figure(
    found: Difference, kind: str | None = None, *, row: int = 0, theme: str = "light"
) -> Chart:
    """See `Difference.figure`."""
    dress = theme_of(theme)
    chosen = kind or ("waterfall" if found.n_rows == 1 else "map")
    if chosen not in DIFFERENCES:
        known = ", ".join(DIFFERENCES)
        raise ArgumentError(f"`kind` is {kind!r}; known are {known}.")
    if not -found.n_rows <= row < found.n_rows:
        raise ArgumentError(
            f"`row` is {row}, but this difference has {found.n_rows} rows, from 0."
        )
    if chosen == "map":
        return dressed(_map(found, dress), dress)
    return dressed(_pair(found, row % found.n_rows, dress), dress)


def _map(found: Difference, theme: Theme) -> Chart:
    """Token x layer: by how much every credit differs, `b - a`."""
    values, units = found.credits, found.units
    shares = len(set(units)) > 1
    if shares:
        values = values / scales_of(values, units)[:, None]
    ends = symmetric(values)
    look = Look(
        columns="predicted token",
        rows="layer",
        legend="b - a · share of the largest" if shares else "b - a",
        names=(row_labels(found.a), segment_labels(found.segments)),
        domain=ends,
        digits=found.n_rows <= DIGITS_UP_TO,
    )
    texts = [
        [format_credit(c, u) for c in row]
        for row, u in zip(found.credits.tolist(), units, strict=True)
    ]
    data = tiles(values, texts, _odd(found), look, least=0.005 * ends[1])
    beyond = int(found.beyond_noise.sum())
    return titled(
        heat(data, look, theme),
        "By how much each layer's credit differs: b less a",
        [
            *sides(found),
            method_words(found.a),
            f"Blue: more in b; orange: more in a. {beyond} of {values.size} cells "
            f"differ beyond rounding.{_crossed(data)}",
        ],
        _description(found),
    )


def _odd(found: Difference) -> dict[tuple[int, int], str]:
    """Why a difference is not to be relied on: either side's reason, or both."""
    told: dict[tuple[int, int], str] = {}
    for name, side in (("a", found.a), ("b", found.b)):
        for cell, reason in odd_cells(side).items():
            before = f"{told[cell]}; " if cell in told else ""
            told[cell] = f"{before}{name}: {reason}"
    return told


def _crossed(data: list[dict[str, object]]) -> str:
    """What crosses mean, if there are any."""
    if any(line["odd"] for line in data):
        return f" {ODD_SIGN}: flagged in a or b, or not a number."
    return ""


def _description(found: Difference) -> str:
    """The map in words: every row's largest difference."""
    names = segment_labels(found.segments)
    said = [
        f"Heat map of differences of credit, {found.n_rows} tokens across, "
        f"{len(names)} steps down; {'; '.join(sides(found))}."
    ]
    for row in range(min(found.n_rows, 12)):
        best = int(np.nan_to_num(np.abs(found.credits[row])).argmax())
        said.append(
            f"{named(found.targets[row])}: "
            f"{credit_words(found.final[row], found.units[row])} in the end, most at "
            f"layer {names[best]} "
            f"({credit_words(found.credits[row, best], found.units[row])})."
        )
    if found.n_rows > 12:
        said.append(f"And {found.n_rows - 12} more.")
    return " ".join(said)


def _pair(found: Difference, row: int, theme: Theme) -> Chart:
    """Both waterfalls on one scale, and the difference of their steps."""
    unit = found.units[row]
    groups = _groups(found, row)
    panels = []
    for name, side in (("a", found.a), ("b", found.b)):
        data = steps(side, row, groups)
        one = waterfall_chart(data, unit_words(unit), len(data), theme)
        panels.append(
            one.properties(width=250, title=_heading(name, side.final[row], unit))
        )
    both = alt.hconcat(*panels, spacing=18).resolve_scale(x="shared")
    data = changes(found, row, groups)
    last = bar_chart(data, unit_words(unit), len(data), theme).properties(
        width=210,
        height=panels[0].height,
        title=_heading("b less a", found.final[row], unit, signed=True),
    )
    largest = sorted(data[1:-1], key=lambda line: -abs(float(str(line["credit"] or 0))))
    told = ", ".join(f"layer {line['y']} {line['text']}" for line in largest[:3])
    whole = alt.hconcat(both, last, spacing=26).resolve_scale(color="independent")
    return titled(
        whole,
        sentence(found, row),
        [
            *sides(found),
            method_words(found.a),
            "At the right the bars of b less those of a; first and last line: the "
            "levels' difference.",
        ],
        f"Two waterfalls of {named(found.targets[row])}, from "
        f"{format_level(found.a.baseline[row], unit)} to "
        f"{format_level(found.a.final[row], unit)} in a and from "
        f"{format_level(found.b.baseline[row], unit)} to "
        f"{format_level(found.b.final[row], unit)} in b, and bars of their "
        f"difference. Largest: {told}.",
    )


def _heading(
    name: str, level: float, unit: str, *, signed: bool = False
) -> alt.TitleParams:
    """The title of a panel: whose, and where it ends."""
    ends = credit_words(level, unit) if signed else format_level(level, unit)
    return alt.TitleParams(text=f"{name}: {ends}", fontSize=12)


def _groups(found: Difference, row: int) -> list[Group]:
    """The same steps for both sides: each by itself, or quiet runs of both as one."""
    names = segment_labels(found.segments)
    if len(names) <= EACH_UP_TO:
        return [(name, [at]) for at, name in enumerate(names)]
    stacked = np.stack([found.a.credits[row], found.b.credits[row]])
    scales = scales_of(stacked, (found.units[row],) * 2)
    merged = lines_of(found.segments, stacked, scales)
    return [(line.label, list(line.members)) for line in merged]


def changes(
    found: Difference, row: int, groups: list[Group]
) -> list[dict[str, object]]:
    """The lines of the last panel: first levels, every step, last levels."""
    ends = found.levels[row, 0], found.levels[row, -1]
    sums = [float(found.credits[row, members].sum()) for _, members in groups]
    names = ["start", *(name for name, _ in groups), "= readout"]
    return [
        {
            "y": name,
            "credit": finite(value),
            "kind": "adds" if value >= 0 else "takes",
            "text": _told(value, ends, sums, found.units[row]),
        }
        for name, value in zip(names, [ends[0], *sums, ends[1]], strict=True)
    ]


def _told(value: float, ends: tuple[float, float], sums: list[float], unit: str) -> str:
    """A number, where its bar is long enough to be seen; odd ones always."""
    if not np.isfinite(value):
        return ODD_SIGN
    size = float(np.nanmax(np.abs([*ends, *sums])))
    return credit_words(value, unit) if abs(value) >= 0.005 * size else ""
