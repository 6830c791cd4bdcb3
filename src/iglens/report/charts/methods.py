"""Methods side by side: a panel for each, in its own unit, over the same layers."""

import altair as alt
import numpy as np

from ...records.comparison import Comparison, Entry
from ..visible import visible
from .theme import Chart, Theme, dressed, source, theme_of, titled
from .words import named, unit_words

COLUMNS = 2
"""Panels side by side."""


def comparison_figure(found: Comparison, *, theme: str = "light") -> Chart:
    """See `Comparison.figure`."""
    dress = theme_of(theme)
    shown = [entry for entry in found.entries if entry.found is not None]
    panels = [panel(found, entry, dress) for entry in shown]
    missing = [entry for entry in found.entries if entry.found is None]
    notes = [
        f"{visible(found.provenance.model.id)} · position {found.position} · "
        f"probability {found.baseline:.3g} at the embedding, {found.final:.3g} at the "
        "end.",
        "Each panel has its method's own unit. Bars are credits that are meant to add "
        "up; lines are levels, which promise no sum.",
        *(
            f"{entry.title}: not here. {visible(entry.reason or '')}"
            for entry in missing
        ),
    ]
    told = "; ".join(
        f"{line.title} adds up to {line.total:+.3g} in probability, off by "
        f"{line.error:+.2g}"
        if line.kind == "contributions"
        else f"{line.title} gives levels"
        for line in found.table
        if line.kind is not None
    )
    chart = titled(
        alt.concat(*panels, columns=COLUMNS, spacing=22),
        f"{named(found.target)} by {len(shown)} methods",
        notes,
        f"Small charts of credits or levels by layer, one per method. {told}.",
    )
    return dressed(chart, dress)


def panel(found: Comparison, entry: Entry, theme: Theme) -> alt.Chart:
    """One method's numbers, layer by layer."""
    numbers = entry.found
    assert numbers is not None  # those that are not here have no panel
    sums = found.by_layer(numbers)
    data: list[dict[str, object]] = [
        {
            "layer": layer,
            "value": value if np.isfinite(value) else None,
            "kind": "adds" if value >= 0 else "takes",
        }
        for layer, value in sums.items()
    ]
    base = alt.Chart(source(data), width=330, height=120).encode(
        x=alt.X(
            "layer:O",
            title=None,
            scale=alt.Scale(domain=list(range(found.n_layers + 1))),
            axis=alt.Axis(labelAngle=0, labelOverlap="greedy", ticks=False),
        ),
        y=alt.Y(
            "value:Q",
            title=unit_words(numbers.unit),
            axis=alt.Axis(tickCount=4, domain=False, ticks=False),
        ),
        tooltip=[alt.Tooltip("layer:O"), alt.Tooltip("value:Q", format="+.4g")],
    )
    title = alt.TitleParams(text=visible(entry.title), fontSize=12)
    if numbers.kind == "reading":
        line = base.mark_line(
            aria=False, color=theme.soft, point=alt.OverlayMarkDef(color=theme.soft)
        )
        return line.properties(title=title)
    colours = alt.Color(
        "kind:N",
        legend=None,
        scale=alt.Scale(domain=["adds", "takes"], range=[theme.gain, theme.loss]),
    )
    return base.mark_bar(aria=False).encode(color=colours).properties(title=title)
