"""One token's way: from its first level, layer by layer, to its last."""

from typing import TypeAlias

import altair as alt
import numpy as np

from ...records import Attribution
from ..cells import lines_of, scales_of
from ..text import below, format_level, sentence
from .theme import Chart, Data, Theme, layered, source, titled
from .words import (
    ODD_SIGN,
    credit_words,
    finite,
    method_words,
    named,
    odd_cells,
    segment_labels,
    start_label,
    unit_words,
)

EACH_UP_TO = 64
"""So many steps get a bar each; of more, runs in which nothing happens share one."""

Group: TypeAlias = tuple[str, list[int]]
"""A step that is drawn: its name, and its segments."""

TOLD = 0.005
"""Bars below this share of the largest go without a number."""


def waterfall(result: Attribution, row: int, theme: Theme) -> Chart:
    """Bars from level to level, baseline first; they end at the model's own level."""
    data = steps(result, row)
    unit = result.units[row]
    target, position = result.targets[row], result.positions[row]
    chart = waterfall_chart(data, unit_words(unit), len(data), theme)
    largest = sorted(
        (line for line in data if line["kind"] in ("adds", "takes")),
        key=lambda line: -abs(float(str(line["credit"] or 0))),
    )[:3]
    told = ", ".join(f"layer {line['y']} {line['text']}" for line in largest)
    return titled(
        chart,
        sentence(result, row),
        [f"position {position} · {method_words(result)}"],
        f"Waterfall of {named(target)} at position {position}: from "
        f"{format_level(result.baseline[row], unit)} to "
        f"{format_level(result.final[row], unit)}; largest steps: {told}. "
        f"{method_words(result)}.",
    )


def steps(
    result: Attribution, row: int, groups: list[Group] | None = None
) -> list[dict[str, object]]:
    """The lines of a waterfall: first level, a line per step, last level.

    Args:
        result: Whose.
        row: Which row.
        groups: The steps; None for every segment, quiet runs of many sharing one.
    """
    unit, odd = result.units[row], odd_cells(result)
    zero = 0.0 if unit == "probability" else None
    lines = [_level(start_label(result), result.levels[row, 0], zero, unit)]
    credits = result.credits[row]
    size = float(np.nanmax(np.abs(credits), initial=0.0)) or 1.0
    at = float(result.levels[row, 0])
    for name, members in groups or _groups(result, row):
        credit = float(credits[members].sum())
        reasons = [odd[row, i] for i in members if (row, i) in odd]
        end = float(result.levels[row, members[-1] + 1])
        start = at
        if result.estimator != "observed" and np.isfinite(credit):
            end = start + credit  # credits of a gradient miss the levels a little
        at = end
        line = _step(name, start, end, credit, size, unit, reasons)
        if line["text"] and result.unsigned[row, members].all():
            line["text"] = below(result)
        lines.append(line)
    lines.append(_level("= readout", result.levels[row, -1], zero, unit))
    return lines


def _groups(result: Attribution, row: int) -> list[Group]:
    """Every segment by itself; of many, runs in which nothing happens as one."""
    names, credits = segment_labels(result.segments), result.credits[row]
    if len(names) <= EACH_UP_TO:
        return [(name, [at]) for at, name in enumerate(names)]
    scale = scales_of(credits[None], (result.units[row],))
    merged = lines_of(result.segments, credits[None], scale)
    return [(line.label, list(line.members)) for line in merged]


def _level(
    label: str, level: float, zero: float | None, unit: str
) -> dict[str, object]:
    """The first line, or the last."""
    return {
        "y": label,
        "start": finite(level) if zero is None else zero,
        "end": finite(level),
        "credit": None,
        "kind": "level",
        "text": format_level(float(level), unit),
        "odd": None if np.isfinite(level) else "not a finite number",
    }


def _step(
    label: str,
    start: float,
    end: float,
    credit: float,
    size: float,
    unit: str,
    reasons: list[str],
) -> dict[str, object]:
    """One layer's line."""
    known = np.isfinite(credit)
    told = known and abs(credit) >= TOLD * size
    return {
        "y": label,
        "start": finite(start) if known else None,
        "end": finite(end) if known else None,
        "credit": finite(credit),
        "kind": ("adds" if credit >= 0 else "takes") if known else "odd",
        "text": credit_words(credit, unit) if told else "",
        "odd": "; ".join(reasons) or None,
    }


def waterfall_chart(data: Data, unit: str, n: int, theme: Theme) -> alt.LayerChart:
    """The picture, for lines as `steps` gives them.

    Args:
        data: The lines.
        unit: What the horizontal axis is.
        n: How many there are; sets the height.
        theme: Its dress.
    """
    base = alt.Chart(source(data)).encode(
        y=alt.Y(
            "y:N",
            sort=None,
            title="layer",
            axis=alt.Axis(ticks=False, domain=False, labelOverlap="greedy"),
        )
    )
    tips = [
        alt.Tooltip("y:N", title="layer"),
        alt.Tooltip("credit:Q", title="credit", format="+.4g"),
        alt.Tooltip("start:Q", title="from", format=".4g"),
        alt.Tooltip("end:Q", title="to", format=".4g"),
    ]
    noted = [*tips, alt.Tooltip("odd:N", title="note")]
    x = alt.X(
        "start:Q",
        title=unit,
        axis=alt.Axis(grid=True, tickCount=5, domain=False, ticks=False),
        scale=alt.Scale(zero=False, nice=False, padding=48),
    )
    colours = alt.Color(
        "kind:N",
        title=None,
        scale=alt.Scale(
            domain=["adds", "takes", "level"],
            range=[theme.gain, theme.loss, theme.level],
        ),
        legend=alt.Legend(orient="top", symbolType="square", offset=4),
    )
    bars = base.mark_bar(aria=False, height={"band": 0.74}).encode(
        x=x, x2="end:Q", color=colours, tooltip=tips
    )
    ends = (
        base.transform_filter("datum.kind == 'level'")
        .mark_tick(aria=False, thickness=1.5)
        .encode(x="end:Q", color=colours, tooltip=tips)
    )
    numbers = (
        base.transform_calculate(at="max(datum.start, datum.end)")
        .mark_text(aria=False, align="left", dx=5, color=theme.ink)
        .encode(x="at:Q", text="text:N")
    )
    odd = (
        base.transform_filter("isValid(datum.odd)")
        .mark_text(aria=False, fontWeight="bold", align="left", color=theme.ink)
        .encode(x=alt.value(4), text=alt.value(ODD_SIGN), tooltip=noted)
    )
    return layered(bars, ends, numbers, odd, width=460, height=min(n * 15, 1100))
