"""What the choice of baseline changes: where the path starts, and its first step."""

import altair as alt

from ...errors import ArgumentError
from ...records.ensemble import Sensitivity
from ..text import format_level
from ..visible import visible
from .theme import Chart, Data, Theme, dressed, layered, source, theme_of, titled
from .words import credit_words, distinct, finite, shown, unit_words


def sensitivity_figure(
    found: Sensitivity, *, row: int = 0, theme: str = "light"
) -> Chart:
    """See `Sensitivity.figure`."""
    dress, n_rows = theme_of(theme), len(found.targets)
    if not -n_rows <= row < n_rows:
        raise ArgumentError(
            f"`row` is {row}, but this result has {n_rows} rows, from 0."
        )
    at = row % n_rows
    unit, data = found.units[at], starts(found, at)
    moved = float(found.moved.max(initial=0.0))
    told = "; ".join(f"{line['y']}: {line['text']}" for line in data)
    name = shown(found.targets[at], 40)
    chart = titled(
        _steps(data, unit_words(unit), dress),
        f"Where '{name}' starts, by baseline, and the embedding's own credit",
        [
            f"position {found.positions[at]} · {unit_words(unit)}",
            "Every path meets at the embedding, the line. Every later credit is the "
            f"same, within {moved:.1g}.",
        ],
        f"Bars from the level at each baseline to that at the embedding. {told}.",
    )
    return dressed(chart, dress)


def starts(found: Sensitivity, row: int) -> list[dict[str, object]]:
    """One line for every baseline: its level, the first credit, where that ends."""
    unit = found.units[row]
    names = distinct(visible(kind)[:40] for kind in found.kinds)
    pairs = zip(found.baseline[row].tolist(), found.first[row].tolist(), strict=True)
    return [
        {
            "y": name,
            "start": finite(start),
            "end": finite(start + credit),
            "credit": finite(credit),
            "kind": "adds" if credit >= 0 else "takes",
            "text": f"{format_level(start, unit)} {credit_words(credit, unit)}",
        }
        for name, (start, credit) in zip(names, pairs, strict=True)
    ]


def _steps(data: Data, unit: str, theme: Theme) -> alt.LayerChart:
    """Bars between both levels, a dot at the baseline's."""
    base = alt.Chart(source(data)).encode(
        y=alt.Y(
            "y:N",
            sort=None,
            title="baseline",
            axis=alt.Axis(ticks=False, domain=False),
        ),
        tooltip=[
            alt.Tooltip("y:N", title="baseline"),
            alt.Tooltip("start:Q", title="level", format=".4g"),
            alt.Tooltip("credit:Q", title="embedding's credit", format="+.4g"),
        ],
    )
    x = alt.X(
        "start:Q",
        title=unit,
        scale=alt.Scale(zero=False, nice=False, padding=16),
        axis=alt.Axis(tickCount=5, domain=False, ticks=False),
    )
    colour = alt.Color(
        "kind:N",
        legend=None,
        scale=alt.Scale(domain=["adds", "takes"], range=[theme.gain, theme.loss]),
    )
    bars = base.mark_bar(aria=False, height={"band": 0.4}).encode(
        x=x, x2="end:Q", color=colour
    )
    dots = base.mark_point(aria=False, filled=True, size=60, opacity=1).encode(
        x=x, color=alt.value(theme.ink)
    )
    meet = base.mark_tick(aria=False, thickness=2, color=theme.ink, size=22)
    told = base.mark_text(aria=False, align="left", dy=-20, color=theme.soft)
    count = len(data)
    return layered(
        bars,
        meet.encode(x="end:Q"),
        dots,
        told.encode(x=alt.value(0), text="text:N"),
        width=460,
        height=max(60, 50 * count),
    )
