"""Colours and type of every picture, in a light and a dark dress.

Blue adds and orange takes, as everywhere in this package; both, and the colours of
rivals, are Okabe and Ito's (jfly.uni-koeln.de/color), which colour-blind readers tell
apart, darker or lighter where the paper needs it. Levels run from the paper's colour
along YlGnBu (ColorBrewer 2), or on a dark screen along viridis: lightness is monotone,
so a grey print keeps the order.
"""

from dataclasses import dataclass
from textwrap import wrap
from typing import TypeAlias

import altair as alt

from ...errors import ArgumentError

Chart: TypeAlias = (
    alt.Chart | alt.LayerChart | alt.VConcatChart | alt.HConcatChart | alt.ConcatChart
)
"""What every builder returns."""

Data: TypeAlias = "list[dict[str, object]] | str"
"""Lines to draw, or the name under which a page will hand them in."""

FONT = "system-ui, 'Segoe UI', 'Liberation Sans', Arial, sans-serif"
"""Of names; an SVG leaves the choice to whoever shows it."""


@dataclass(frozen=True)
class Theme:
    """One dress.

    Attributes:
        name: "light" or "dark".
        paper: Background.
        ink: Text.
        soft: Text of less weight.
        grid: Lines.
        gain: Credits above zero, at full strength.
        loss: Credits below zero, at full strength.
        middle: A credit of zero.
        level: Bars that are levels.
        odd: Cells that are not numbers to rely on.
        ramp: Colours of levels, from nothing to everything.
        others: Colours of rivals.
    """

    name: str
    paper: str
    ink: str
    soft: str
    grid: str
    gain: str
    loss: str
    middle: str
    level: str
    odd: str
    ramp: tuple[str, ...]
    others: tuple[str, ...]


LIGHT = Theme(
    name="light",
    paper="#ffffff",
    ink="#1b1f24",
    soft="#57606a",
    grid="#e6e8eb",
    gain="#0072b2",
    loss="#d55e00",
    middle="#f6f7f8",
    level="#8c959f",
    odd="#c9ced4",
    ramp=("#f6f7f8", "#c7e9b4", "#41b6c4", "#225ea8", "#081d58"),
    others=("#d55e00", "#008f68", "#b5588c", "#957700", "#57606a"),
)

DARK = Theme(
    name="dark",
    paper="#14171c",
    ink="#e8eaed",
    soft="#a3abb5",
    grid="#2b3038",
    gain="#56b4e9",
    loss="#f0883e",
    middle="#20252c",
    level="#77808b",
    odd="#4a515b",
    ramp=("#20252c", "#3b4a7d", "#21908d", "#6ccd5a", "#fde725"),
    others=("#f0883e", "#2fc498", "#e39ac1", "#e6c84a", "#a3abb5"),
)

THEMES = {theme.name: theme for theme in (LIGHT, DARK)}


def theme_of(name: str) -> Theme:
    """A dress by its name.

    Raises:
        ArgumentError: If there is none.
    """
    if name not in THEMES:
        raise ArgumentError(f"`theme` is {name!r}; known are {', '.join(THEMES)}.")
    return THEMES[name]


def source(data: Data) -> alt.Data:
    """The lines, or where a page will find them, as Altair wants them."""
    if isinstance(data, str):
        return alt.NamedData(name=data)
    inline = alt.InlineData(values=[])
    inline.values = data  # not through the constructor, which checks line by line
    return inline


def layered(
    *charts: alt.Chart | alt.LayerChart, width: int, height: int
) -> alt.LayerChart:
    """Charts on top of each other, the first at the bottom."""
    return alt.LayerChart(layer=list(charts), width=width, height=height)


def titled(chart: Chart, title: str, subtitle: list[str], description: str) -> Chart:
    """The chart with its heading, and the same in words for who cannot see it."""
    lines = [part for line in subtitle for part in wrap(line, 96)]
    heading = alt.TitleParams(text=wrap(title, 78), subtitle=lines)
    return chart.properties(title=heading, description=description)


def dressed(chart: Chart, theme: Theme) -> Chart:
    """The chart in a theme's colours and type; to be done once, at the very end."""
    return (
        chart.configure(background=theme.paper, font=FONT, padding=14)
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=theme.soft,
            titleColor=theme.soft,
            titleFontWeight="normal",
            titleFontSize=11,
            labelFontSize=11,
            domainColor=theme.grid,
            tickColor=theme.grid,
            gridColor=theme.grid,
            labelLimit=220,
        )
        .configure_legend(
            labelColor=theme.soft,
            titleColor=theme.soft,
            titleFontWeight="normal",
            titleFontSize=11,
            labelFontSize=11,
            gradientThickness=9,
            labelLimit=260,
        )
        .configure_title(
            color=theme.ink,
            subtitleColor=theme.soft,
            anchor="start",
            frame="group",
            fontSize=15,
            fontWeight=600,
            subtitleFontSize=11,
            offset=14,
            subtitlePadding=5,
        )
        .configure_header(labelColor=theme.ink, titleColor=theme.soft, labelFontSize=11)
        .configure_text(color=theme.ink, fontSize=10.5)
        .configure_concat(spacing=26)
    )
