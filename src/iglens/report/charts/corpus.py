"""A whole run in pictures: means with their bands, onsets, slices, and the null."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import altair as alt
import numpy as np

from ...errors import ArgumentError
from ...records.estimates import DEPTHS, Band, Group
from ..visible import visible
from .theme import Chart, Theme, dressed, layered, source, theme_of, titled
from .words import distinct, finite, segment_labels, shown, unit_words

if TYPE_CHECKING:
    from ...records.summary import Summary

WORDS = {
    "onset_mass": "half of all movement is done",
    "onset_net": "half of the change is there for the first time",
    "commit": "half of the change is there to stay",
    "prediction_depth": "the target is, and stays, the likeliest token",
}
"""The depths, and what they say."""

WIDTH, HEIGHT = 560, 220
"""Pixels of a chart by layer."""

Line = dict[str, object]


def summary_figure(
    summary: "Summary", kind: str | None = None, *, theme: str = "light"
) -> Chart:
    """See `Summary.figure`."""
    dress = theme_of(theme)
    if not summary.whole:
        raise ArgumentError(
            "No row of this run was explained, so there is nothing to draw."
        )
    chosen = kind or "credits"
    if chosen not in KINDS:
        raise ArgumentError(f"`kind` is {kind!r}; known are {', '.join(KINDS)}.")
    return dressed(KINDS[chosen](summary, dress), dress)


def credits_chart(summary: "Summary", theme: Theme) -> Chart:
    """Mean credit of every segment: band, interval and mean."""
    group = summary.whole[0]
    labels = segment_labels(summary.segments)
    data = lines_of_band(labels, group.credits, "")
    best = int(np.nan_to_num(np.abs(group.credits.mean)).argmax())
    return titled(
        banded(data, labels, f"mean credit, {unit_words(group.unit)}", [""], theme),
        "What each layer added, on average",
        [_over(summary, group), _bounds(summary, group)],
        f"Mean credit by layer. Largest: layer {labels[best]} with "
        f"{group.credits.mean[best]:+.3g}.",
    )


def levels_chart(summary: "Summary", theme: Theme) -> Chart:
    """Mean level at every point."""
    group = summary.whole[0]
    labels = distinct(["start", *segment_labels(summary.segments)])
    data = lines_of_band(labels, group.levels, "")
    ends = [float(group.levels.mean[at]) for at in (0, -1)]
    return titled(
        banded(data, labels, f"mean level, {unit_words(group.unit)}", [""], theme),
        "What could be read after each layer, on average",
        [_over(summary, group), _bounds(summary, group)],
        f"Mean level by layer over {group.n_rows} tokens, from {ends[0]:.3g} to "
        f"{ends[1]:.3g}.",
    )


def onsets_chart(summary: "Summary", theme: Theme) -> Chart:
    """Histograms of every depth, one below the other."""
    group = summary.whole[0]
    panels = [_histogram(group, name, theme) for name in DEPTHS]
    gone = ", ".join(
        f"{one.missing} without {name.replace('_', ' ')}"
        for name, one in group.depths.items()
        if one.missing
    )
    middles = "; ".join(f"{name}: {group.depths[name].median}" for name in DEPTHS)
    return titled(
        alt.vconcat(*panels, spacing=14),
        "After which layer tokens became readable",
        [_over(summary, group), *([f"Tokens that have none: {gone}."] if gone else [])],
        f"Histograms over {group.n_rows} tokens. Median layers: {middles}.",
    )


def slices_chart(summary: "Summary", theme: Theme) -> Chart:
    """Mean levels of the groups of every slice, and how each ends."""
    if not summary.slices:
        raise ArgumentError(
            "This summary has no slices: name a column with `--slice` (`slices=`)."
        )
    panels = []
    for one in summary.slices:
        unit = one.groups[0].unit
        groups = [group for group in one.groups if group.unit == unit]
        names = distinct(shown(group.value) for group in groups)
        data: list[Line] = [
            {
                "y": name,
                "value": finite(group.final.value),
                "low": finite(group.final.low),
                "high": finite(group.final.high),
                "n": group.n_rows,
            }
            for name, group in zip(names, groups, strict=True)
        ]
        panels.append(_dots(data, names, f"by {visible(one.column)}", unit, theme))
    group = summary.whole[0]
    told = ", ".join(visible(one.column) for one in summary.slices)
    return titled(
        alt.vconcat(*panels, spacing=18),
        "Where groups of tokens end up, on average",
        [_over(summary, group), _bounds(summary, group, band=False)],
        f"Mean final level of every group, by {told}.",
    )


def null_chart(summary: "Summary", theme: Theme) -> Chart:
    """Mean credits of the run and of its null."""
    if summary.null is None:
        raise ArgumentError(
            "There is no null beside this summary: give one with `--null` (`null=`)."
        )
    group = summary.whole[0]
    labels = segment_labels(summary.segments)
    data = lines_of_band(labels, group.credits, "run")
    for other in summary.null.groups:
        if other.unit == group.unit:
            data += lines_of_band(labels, other.credits, "null")
    clears = summary.null.clears(group.unit)
    told = "Too few prompts for a band."
    if clears is not None:
        told = f"{int(clears.sum())} of {len(clears)} segments differ from the null."
    return titled(
        banded(
            data,
            labels,
            f"mean credit, {unit_words(group.unit)}",
            ["run", "null"],
            theme,
        ),
        f"What each layer added, beside the null of {visible(summary.null.of)}",
        [_over(summary, group), f"{_bounds(summary, group)} {told}"],
        f"Mean credit by layer of the run and of its null. {told}",
    )


KINDS: dict[str, Callable[["Summary", Theme], Chart]] = {
    "credits": credits_chart,
    "levels": levels_chart,
    "onsets": onsets_chart,
    "slices": slices_chart,
    "null": null_chart,
}
"""The pictures of a summary."""


def _over(summary: "Summary", group: Group) -> str:
    """What the numbers are over."""
    model = visible(str(summary.run["model"]["id"]))
    return (
        f"{model} · {unit_words(group.unit)} · {group.n_prompts} prompts, "
        f"{group.n_rows} tokens"
    )


def _bounds(summary: "Summary", group: Group, *, band: bool = True) -> str:
    """What is drawn around the means."""
    if not group.final.bounded:
        return "Too few prompts for intervals."
    told = f"Bars: {summary.level:.0%} intervals over prompts."
    return f"{told} Band: {summary.level:.0%} for all layers at once." * band or told


def lines_of_band(labels: Sequence[str], band: Band, what: str) -> list[Line]:
    """One line per place of a curve."""
    names = ("mean", "low", "high", "band_low", "band_high")
    return [
        {"x": label, "what": what}
        | {name: finite(getattr(band, name)[at]) for name in names}
        for at, label in enumerate(labels)
    ]


def banded(
    data: list[Line],
    labels: Sequence[str],
    title: str,
    names: Sequence[str],
    theme: Theme,
) -> alt.LayerChart:
    """Bands with intervals and means, along the path."""
    base = alt.Chart(source(data)).encode(
        x=alt.X(
            "x:N",
            sort=list(labels),
            title="layer",
            axis=alt.Axis(labelAngle=0, labelOverlap="greedy", ticks=False),
        ),
        color=alt.Color(
            "what:N",
            title=None,
            scale=alt.Scale(
                domain=list(names), range=[theme.gain, theme.loss][: len(names)]
            ),
            legend=alt.Legend(symbolOpacity=1) if len(names) > 1 else None,
        ),
    )
    axis = alt.Axis(tickCount=6, domain=False, ticks=False, format="~g")
    bands = base.mark_area(aria=False, opacity=0.2).encode(
        y=alt.Y("band_low:Q", title=title, axis=axis), y2="band_high:Q"
    )
    spans = base.mark_rule(aria=False, strokeWidth=2).encode(
        y=alt.Y("low:Q", title=title), y2="high:Q"
    )
    dash = alt.StrokeDash(
        "what:N",
        title=None,
        scale=alt.Scale(domain=list(names), range=[[1, 0], [5, 3]][: len(names)]),
        legend=None,
    )
    means = base.mark_line(aria=False, point=True, strokeWidth=1.5).encode(
        strokeDash=dash,
        y=alt.Y("mean:Q", title=title),
        tooltip=[
            alt.Tooltip("x:N", title="layer"),
            *(alt.Tooltip(f"{n}:Q", format="+.4g") for n in ("mean", "low", "high")),
        ],
    )
    zero = (
        alt.Chart(source([{"y": 0}]))
        .mark_rule(aria=False, color=theme.soft, strokeWidth=1)
        .encode(y=alt.Y("y:Q", title=title))
    )
    return layered(zero, bands, spans, means, width=WIDTH, height=HEIGHT)


def _histogram(group: Group, name: str, theme: Theme) -> alt.Chart:
    """At which layers one depth lies."""
    one = group.depths[name]
    data: list[Line] = [
        {"layer": layer, "n": int(n)}
        for layer, n in zip(one.layers, one.counts, strict=True)
        if n
    ]
    return (
        alt.Chart(source(data), height=70, width=WIDTH)
        .mark_bar(aria=False, color=theme.gain)
        .encode(
            x=alt.X(
                "layer:O",
                title=None,
                scale=alt.Scale(domain=list(one.layers)),
                axis=alt.Axis(labelAngle=0, labelOverlap="greedy", ticks=False),
            ),
            y=alt.Y(
                "n:Q",
                title="tokens",
                axis=alt.Axis(tickCount=3, tickMinStep=1, domain=False, ticks=False),
            ),
            tooltip=[alt.Tooltip("layer:O"), alt.Tooltip("n:Q", title="tokens")],
        )
        .properties(
            title=alt.TitleParams(text=WORDS[name], fontSize=11, fontWeight="normal")
        )
    )


def _dots(
    data: Sequence[Line], names: Sequence[str], title: str, unit: str, theme: Theme
) -> alt.LayerChart:
    """A dot with its interval for every group."""
    base = alt.Chart(source(list(data))).encode(
        y=alt.Y(
            "y:N",
            sort=list(names),
            title=None,
            axis=alt.Axis(ticks=False, domain=False),
        )
    )
    head = f"mean final level, {unit_words(unit)}"
    axis = alt.Axis(tickCount=6, domain=False, ticks=False)
    spans = base.mark_rule(aria=False, strokeWidth=4, color=theme.level).encode(
        x=alt.X("low:Q", title=head), x2="high:Q"
    )
    dots = base.mark_point(aria=False, filled=True, size=60, color=theme.gain).encode(
        x=alt.X("value:Q", title=head, axis=axis),
        tooltip=[
            "y:N",
            alt.Tooltip("value:Q", format=".4g"),
            alt.Tooltip("n:Q", title="tokens"),
        ],
    )
    chart = layered(spans, dots, width=WIDTH - 100, height=max(40, 22 * len(names)))
    return chart.properties(
        title=alt.TitleParams(text=title, fontSize=11, fontWeight="normal")
    )
