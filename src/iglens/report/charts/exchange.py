"""Rivals: who gained and lost at each layer, and whether targets were promoted."""

import altair as alt
import numpy as np

from ...errors import ArgumentError
from ...records import Flow, Promotion, Subject
from ..text import model_name
from ..visible import visible
from .bars import end_numbers
from .theme import Chart, Theme, dressed, layered, source, theme_of, titled
from .words import distinct, named, segment_labels, shown

MATTERS = 0.01
"""Layers with less than this share of all that moves are left out."""


def flow_figure(flow: Flow, *, row: int = 0, theme: str = "light") -> Chart:
    """See `Flow.figure`."""
    dress, at = theme_of(theme), checked_row(flow.subject, row)
    data = gains_and_losses(flow, at)
    if not data:
        raise ArgumentError(f"`row` {row}: no layer moves this target's probability.")
    subject = flow.subject
    largest = sorted(data, key=lambda line: -abs(float(str(line["change"]))))[:5]
    told = ", ".join(
        f"{line['token']} {line['text']} at layer {line['layer']}" for line in largest
    )
    chart = titled(
        _facets(data, dress),
        f"Who gained and who lost while {named(subject.targets[at])} moved",
        [
            f"{where(subject, at)} · probability · {visible(subject.lens)} lens",
            "Over the whole vocabulary gains and losses cancel; layers that move "
            "little are left out.",
        ],
        f"Bars of probability gained and lost, by layer and token. Largest: {told}.",
    )
    return dressed(chart, dress)


def where(subject: Subject, row: int) -> str:
    """Position and model."""
    model = visible(model_name(subject.provenance.model.id))
    return f"position {subject.positions[row]} · {model}"


def checked_row(subject: Subject, row: int) -> int:
    """A row counted as in a list.

    Raises:
        ArgumentError: If there is no such row.
    """
    if not -subject.n_rows <= row < subject.n_rows:
        raise ArgumentError(
            f"`row` is {row}, but this result has {subject.n_rows} rows, from 0."
        )
    return row % subject.n_rows


def gains_and_losses(flow: Flow, row: int) -> list[dict[str, object]]:
    """A line for every listed token of every layer that moves much."""
    labels, moved = segment_labels(flow.subject.segments), np.abs(flow.credits[row])
    own = set(flow.subject.targets[row].ids)
    least = MATTERS * float(np.nan_to_num(moved).sum())
    data: list[dict[str, object]] = []
    for at, label in enumerate(labels):
        if not moved[at] > least:
            continue
        ids = [*flow.gain_ids[row, at], *flow.loss_ids[row, at]]
        changes = [*flow.gains[row, at], *flow.losses[row, at]]
        pairs = [
            (int(i), float(c)) for i, c in zip(ids, changes, strict=True) if i >= 0
        ]
        names = distinct(shown(flow.vocabulary[token]) for token, _ in pairs)
        data += [
            {
                "layer": label,
                "token": f"'{name}'",
                "change": change,
                "text": f"{change:+.3f}",
                "who": "target" if token in own else "rival",
            }
            for name, (token, change) in zip(names, pairs, strict=True)
            if abs(change) >= 5e-4
        ]
    return data


def _facets(data: list[dict[str, object]], theme: Theme) -> alt.VConcatChart:
    """A small bar chart for every layer, on one scale."""
    ends = [float(str(line["change"])) for line in data]
    low, high = min(0.0, *ends), max(0.0, *ends)
    space = 0.14 * (high - low)
    x = alt.X(
        "change:Q",
        title="change of probability",
        scale=alt.Scale(domain=[low - space, high + space], nice=False),
        axis=alt.Axis(tickCount=5, domain=False, ticks=False),
    )
    colours = alt.Color(
        "who:N",
        title=None,
        scale=alt.Scale(domain=["target", "rival"], range=[theme.gain, theme.level]),
    )
    panels = []
    for layer in dict.fromkeys(line["layer"] for line in data):
        own = [line for line in data if line["layer"] == layer]
        base = alt.Chart(source(own)).encode(
            y=alt.Y("token:N", sort=None, title=None, axis=alt.Axis(ticks=False))
        )
        marks = base.mark_bar(aria=False).encode(x=x, color=colours)
        numbers = end_numbers(base, x, "change", theme)
        heading = alt.TitleParams(text=f"layer {layer}", fontSize=12)
        drawn = layered(marks, *numbers, width=420, height=max(30, 17 * len(own)))
        panels.append(drawn.properties(title=heading))
    return alt.vconcat(*panels, spacing=10)


def promotion_figure(found: Promotion, *, row: int = 0, theme: str = "light") -> Chart:
    """See `Promotion.figure`."""
    dress, at = theme_of(theme), checked_row(found.subject, row)
    subject = found.subject
    splits = (("promotion", "competition"), ("temperature", "preference"))
    sums = {
        name: float(getattr(found, name)[at].sum()) for pair in splits for name in pair
    }
    panels = [_split(found, at, pair, dress) for pair in splits]
    told = ", ".join(f"{name} {total:+.2f}" for name, total in sums.items())
    chart = titled(
        alt.hconcat(*panels).resolve_scale(color="independent"),
        f"Was {named(subject.targets[at])} promoted, or were its rivals demoted?",
        [
            f"{where(subject, at)} · log-odds, nats",
            f"Centred by the {found.centring}; scale: {found.scale}. Each pair of bars "
            "adds up to the layer's credit.",
        ],
        f"Bars by layer of two splits of log-odds. Over the whole path: {told}.",
    )
    return dressed(chart, dress)


def _split(
    found: Promotion, row: int, names: tuple[str, str], theme: Theme
) -> alt.Chart:
    """One pair of parts, stacked about zero."""
    labels = segment_labels(found.subject.segments)
    data: list[dict[str, object]] = [
        {"y": label, "part": name, "value": float(value)}
        for name in names
        for label, value in zip(labels, getattr(found, name)[row], strict=True)
        if np.isfinite(value)
    ]
    return (
        alt.Chart(source(data), width=260, height=14 * len(labels))
        .mark_bar(aria=False)
        .encode(
            y=alt.Y(
                "y:N",
                sort=labels,
                title="layer",
                axis=alt.Axis(ticks=False, domain=False, labelOverlap="greedy"),
            ),
            x=alt.X("value:Q", title="nats", axis=alt.Axis(domain=False, ticks=False)),
            color=alt.Color(
                "part:N",
                title=None,
                scale=alt.Scale(domain=list(names), range=[theme.gain, theme.loss]),
                legend=alt.Legend(orient="top"),
            ),
            tooltip=["y:N", "part:N", alt.Tooltip("value:Q", format="+.3f")],
        )
    )
