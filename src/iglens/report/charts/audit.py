"""Credits beside what really happens without each layer, and how far orders agree."""

from typing import TYPE_CHECKING

import altair as alt
import numpy as np
from jaxtyping import Float

from ..visible import visible
from .theme import Chart, Theme, dressed, layered, source, theme_of, titled
from .words import ODD_SIGN, segment_labels, unit_words

if TYPE_CHECKING:
    from ...records.audit import Audit

SHAPES = {"credit": "circle", "effect": "diamond", "gates": "triangle-up"}
"""What each kind of number is drawn as; the colours say the same."""


def audit_figure(audit: "Audit", *, theme: str = "light") -> Chart:
    """See `Audit.figure`."""
    dress = theme_of(theme)
    labels = segment_labels(audit.segments)
    layers = dots(labels, _numbers(audit), audit.unit, dress)
    charts = [layers, _agreement(audit, dress)] if audit.correlations else [layers]
    count = len(audit.results)
    texts = "1 text" if count == 1 else f"means over {count} texts"
    model = visible(audit.results[0].provenance.model.id)
    missed = sum(1 for _ in audit.invisible)
    chart = titled(
        alt.vconcat(*charts, spacing=24),
        "What became readable at each layer, and what is lost without it",
        [
            f"{model} · {unit_words(audit.unit)} · {texts} · {audit.effects.kind}, "
            f"{audit.effects.at} tokens",
            "A credit says where the token became readable, an effect what it depends "
            f"on. Large effects beside small credits: {missed}.",
            *(
                [f"Below: bars are 95% over texts, {ODD_SIGN} other texts' targets."]
                if audit.correlations
                else []
            ),
        ],
        _description(audit),
    )
    return dressed(chart, dress)


def _numbers(audit: "Audit") -> dict[str, Float[np.ndarray, " segments"]]:
    """Means over the texts."""
    found = {"credit": audit.credits, "effect": audit.effects.effects}
    if audit.gates is not None:
        found["gates"] = audit.gates.effects
    return {name: values.mean(0) for name, values in found.items()}


def _description(audit: "Audit") -> str:
    """Both in words: where each is largest."""
    labels = segment_labels(audit.segments)
    largest = []
    for name, values in _numbers(audit).items():
        best = int(np.nan_to_num(np.abs(values)).argmax())
        largest.append(f"{name} at layer {labels[best]} ({values[best]:+.3g})")
    said = [
        f"Dots by layer, {', '.join(_numbers(audit))}. Largest: {'; '.join(largest)}."
    ]
    for one in audit.correlations:
        which = "all layers" if one.with_last else "without the last layer"
        said.append(f"Spearman of {one.method} and effect, {which}: {one.mean:.2f}.")
    return " ".join(said)


def dots(
    labels: list[str],
    numbers: dict[str, Float[np.ndarray, " segments"]],
    unit: str,
    theme: Theme,
    *,
    width: int = 460,
) -> alt.LayerChart:
    """A dot for every number of every layer, the dots of a layer joined by a line.

    Args:
        labels: The layers.
        numbers: Some of `SHAPES`, one number a layer.
        unit: Of all of them.
        theme: Its dress.
        width: In pixels.
    """
    data: list[dict[str, object]] = [
        {"y": label, "what": name, "value": float(values[at])}
        for name, values in numbers.items()
        for at, label in enumerate(labels)
        if np.isfinite(values[at])
    ]
    base = alt.Chart(source(data)).encode(
        y=alt.Y(
            "y:N",
            sort=labels,
            title="layer",
            axis=alt.Axis(ticks=False, domain=False, labelOverlap="greedy"),
        )
    )
    x = alt.X(
        "value:Q",
        title=unit_words(unit),
        axis=alt.Axis(tickCount=6, domain=False, ticks=False),
    )
    joined = base.mark_rule(aria=False, color=theme.grid, strokeWidth=3).encode(
        x=alt.X("min(value):Q", title=unit_words(unit)), x2="max(value):Q"
    )
    names = list(numbers)
    colours = {"credit": theme.gain, "effect": theme.ink, "gates": theme.loss}
    marks = base.mark_point(aria=False, filled=True, size=46, opacity=1).encode(
        x=x,
        color=alt.Color(
            "what:N",
            title=None,
            scale=alt.Scale(domain=names, range=[colours[name] for name in names]),
        ),
        shape=alt.Shape(
            "what:N",
            title=None,
            scale=alt.Scale(domain=names, range=[SHAPES[name] for name in names]),
        ),
        tooltip=["y:N", "what:N", alt.Tooltip("value:Q", format="+.4g")],
    )
    return layered(joined, marks, width=width, height=len(labels) * 14)


def _agreement(audit: "Audit", theme: Theme) -> alt.LayerChart:
    """Every rank correlation with its interval, and that of other texts' targets."""
    data: list[dict[str, object]] = [
        {
            "y": f"{one.method}, {'all' if one.with_last else 'without the last'}",
            "mean": one.mean if np.isfinite(one.mean) else None,
            "low": one.low if np.isfinite(one.low) else None,
            "high": one.high if np.isfinite(one.high) else None,
            "null": one.null if np.isfinite(one.null) else None,
        }
        for one in audit.correlations
    ]
    base = alt.Chart(source(data)).encode(
        y=alt.Y("y:N", sort=None, title=None, axis=alt.Axis(ticks=False, domain=False))
    )
    title = "Spearman's rank correlation with the effect"
    x = alt.X(
        "mean:Q",
        title=title,
        scale=alt.Scale(domain=[-1, 1]),
        axis=alt.Axis(tickCount=5, domain=False, ticks=False),
    )
    spans = base.mark_rule(aria=False, strokeWidth=4, color=theme.level)
    means = base.mark_point(aria=False, filled=True, size=60, color=theme.gain)
    nulls = base.mark_text(aria=False, text=ODD_SIGN, color=theme.soft, fontSize=14)
    return layered(
        spans.encode(x=alt.X("low:Q", title=title), x2="high:Q"),
        means.encode(x=x, tooltip=["y:N", alt.Tooltip("mean:Q", format=".3f")]),
        nulls.encode(x="null:Q"),
        width=460,
        height=max(40, 22 * len(data)),
    )
