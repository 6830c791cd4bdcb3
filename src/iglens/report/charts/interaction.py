"""What parts of blocks change alone, and what only together."""

import altair as alt
import numpy as np

from ...records.interaction import Interaction
from ..visible import visible
from .exchange import checked_row, where
from .theme import Chart, Theme, dressed, layered, source, theme_of, titled
from .words import credit_words, finite, named, unit_words

TOGETHER = "only together"
"""What is nobody's own."""

TOLD = 0.005
"""Layers whose credit is below this share of the largest have no tick."""


def interaction_figure(
    found: Interaction, *, row: int = 0, theme: str = "light"
) -> Chart:
    """See `Interaction.figure`."""
    dress, at = theme_of(theme), checked_row(found.subject, row)
    subject, layers = found.subject, found.layers
    target = subject.targets[at]
    unit = target.space or found.unit
    values = found.interaction[at]
    order = np.argsort(-np.nan_to_num(np.abs(values)), kind="stable")[:3]
    told = ", ".join(
        f"layer {layers[i]} {credit_words(values[i], unit)}" for i in order
    )
    chart = titled(
        _bars(lines(found, at), unit, dress, len(layers)),
        f"What parts of a layer change for {named(target)} alone, and only together",
        [
            f"{where(subject, at)} · {unit_words(unit)} · {visible(subject.lens)} lens",
            "Alone: added to what enters the layer, without the others; where parts "
            "follow each other this is no state of the model. Tick: all together, the "
            "layer's credit.",
        ],
        f"Stacked bars by layer: what each part changes alone, and what they change "
        f"only together. Largest together: {told}.",
    )
    return dressed(chart, dress)


def lines(found: Interaction, row: int) -> list[dict[str, object]]:
    """One line for every part alone, and one for what each layer does together.

    The latter also say where all of it ends, but for layers in which nothing happens.
    """
    alone = zip(found.subject.segments, found.alone[row].tolist(), strict=True)
    data: list[dict[str, object]] = [
        {"y": str(s.layer), "part": visible(s.part), "value": finite(value)}
        for s, value in alone
    ]
    credits, layers = found.credits[row], np.array(found.subject.layers)
    sums = [float(credits[layers == layer].sum()) for layer in found.layers]
    largest = float(np.nan_to_num(np.abs(sums)).max(initial=0.0))
    together = found.interaction[row].tolist()
    for layer, value, end in zip(found.layers, together, sums, strict=True):
        shown = finite(end) if abs(end) >= TOLD * largest else None
        line = {"y": str(layer), "part": TOGETHER, "value": finite(value)}
        data.append({**line, "end": shown})
    return data


def _bars(
    data: list[dict[str, object]], unit: str, theme: Theme, n_layers: int
) -> alt.LayerChart:
    """The pieces of every layer stacked about zero, with a tick where they end."""
    parts = [str(line["part"]) for line in data]
    names = [*dict.fromkeys(part for part in parts if part != TOGETHER), TOGETHER]
    own = [theme.gain, *theme.others[1:], theme.level]
    colours = [own[i % len(own)] for i in range(len(names) - 1)] + [theme.loss]
    base = alt.Chart(source(data)).encode(
        y=alt.Y(
            "y:N",
            sort=list(dict.fromkeys(str(line["y"]) for line in data)),
            title="layer",
            axis=alt.Axis(ticks=False, domain=False, labelOverlap="greedy"),
        )
    )
    axis = alt.Axis(tickCount=5, domain=False, ticks=False)
    bars = base.mark_bar(aria=False, height={"band": 0.74}).encode(
        x=alt.X("value:Q", title=unit_words(unit), axis=axis, stack="zero"),
        color=alt.Color(
            "part:N",
            title=None,
            scale=alt.Scale(domain=names, range=colours),
            legend=alt.Legend(orient="top", symbolType="square", offset=4),
        ),
        tooltip=["y:N", "part:N", alt.Tooltip("value:Q", format="+.4g")],
    )
    ends = (
        base.transform_filter("isValid(datum.end)")
        .mark_tick(aria=False, thickness=2, color=theme.ink)
        .encode(x=alt.X("end:Q", title=unit_words(unit)))
    )
    zero = alt.Chart().mark_rule(aria=False, color=theme.soft, strokeWidth=0.7)
    return layered(
        bars,
        zero.encode(x=alt.datum(0)),
        ends,
        width=460,
        height=max(40, min(15 * n_layers, 1100)),
    )
