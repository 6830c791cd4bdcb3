"""Heat maps: layers down, tokens or heads across; odd cells grey and crossed."""

from dataclasses import dataclass
from typing import Literal

import altair as alt
import numpy as np
from jaxtyping import Float

from ...records import Attribution
from ..cells import scales_of
from ..text import credit_of, format_credit, format_level, level_of
from .theme import Chart, Data, Theme, layered, source, titled
from .words import (
    ODD_SIGN,
    finite,
    method_words,
    named,
    odd_cells,
    odd_levels,
    point_labels,
    row_labels,
    segment_labels,
    unit_words,
)

DIGITS_UP_TO = 12
"""So many columns have room for numbers in their cells."""

WIDEST = 1400
"""Width of a map in pixels, at most, whatever the number of columns."""


@dataclass(frozen=True)
class Look:
    """What a heat map shows, and how large.

    Attributes:
        columns: Title of the horizontal axis.
        rows: Title of the vertical axis.
        legend: Title of the colours.
        names: Labels of columns and of rows, in order; none where a page knows them.
        kind: "credit" (diverging, symmetric about 0) or "level" (sequential).
        domain: Values at both ends of the colours; None for those of the data.
        digits: Whether cells show their numbers.
        key: Whether to draw a legend.
        upright: Whether names of columns are short enough to stand side by side.
    """

    columns: str
    rows: str
    legend: str
    names: tuple[list[str], list[str]]
    kind: Literal["credit", "level"] = "credit"
    domain: tuple[float, float] | None = None
    digits: bool = False
    key: bool = True
    upright: bool = False


def heat(data: Data, look: Look, theme: Theme) -> alt.LayerChart:
    """The map itself.

    Args:
        data: Lines with `x` and `y` (labels), `value` (None where it is no number),
            `text`, `odd` (why it is not to be relied on, or None).
        look: What it shows.
        theme: Its dress.
    """
    columns, rows = (len(names) for names in look.names)
    x = alt.X(
        "x:N",
        sort=None,
        title=look.columns,
        axis=alt.Axis(
            labelAngle=0 if look.upright else -90,
            labelOverlap="greedy",
            ticks=False,
            domain=False,
        ),
        scale=_places(look.names[0], 120),
    )
    y = alt.Y(
        "y:N",
        sort=None,
        title=look.rows,
        axis=alt.Axis(labelOverlap="greedy", ticks=False, domain=False),
        scale=_places(look.names[1], 60),
    )
    tips = [
        alt.Tooltip("x:N", title=look.columns),
        alt.Tooltip("y:N", title=look.rows),
        alt.Tooltip("text:N", title=look.legend),
    ]
    noted = [*tips, alt.Tooltip("odd:N", title="note")]
    base = alt.Chart(source(data)).encode(x=x, y=y)
    tiles = base.mark_rect(aria=False).encode(color=_colour(look, theme), tooltip=tips)
    odd = base.transform_filter("isValid(datum.odd)")
    holes = (
        odd.transform_filter("!isValid(datum.value)")
        .mark_rect(aria=False, fill=theme.odd)
        .encode(tooltip=noted)
    )
    signs = odd.mark_text(aria=False, fontWeight="bold", color=theme.ink)
    layers = [tiles, holes, signs.encode(text=alt.value(ODD_SIGN), tooltip=noted)]
    if look.digits:
        layers.append(_digits(base, look, theme).encode(tooltip=tips))
    return layered(
        *layers,
        width=_span(columns, 46 if look.digits else 20, WIDEST),
        height=_span(rows, 15, 1000),
    )


def _places(names: list[str], spaced: int) -> alt.Scale:
    """A place for every name, those without a number too; gaps while there is room."""
    scale = alt.Scale(paddingInner=0.04 if len(names) <= spaced else 0)
    if names:
        scale.domain = names
    return scale


def _span(n: int, step: int, most: int) -> int:
    """Pixels for some cells: a step each while there is room."""
    return max(40, min(n * step, most))


def _colour(look: Look, theme: Theme) -> alt.Color:
    """Diverging about 0, or from little to much."""
    legend = None  # a page has its own
    if look.key:
        legend = alt.Legend(title=look.legend.split(" · "), gradientLength=140)
    if look.kind == "level":
        low, high = look.domain or (0.0, 1.0)
        stops = np.linspace(low, high, len(theme.ramp)).tolist()
        scale = alt.Scale(domain=stops, range=list(theme.ramp), clamp=True)
        return alt.Color("value:Q", scale=scale, legend=legend)
    ends = look.domain or (-1.0, 1.0)
    return alt.Color(
        "value:Q",
        legend=legend,
        scale=alt.Scale(
            domain=[ends[0], 0, ends[1]],
            range=[theme.loss, theme.middle, theme.gain],
            interpolate="lab",
            clamp=True,
        ),
    )


def _digits(base: alt.Chart, look: Look, theme: Theme) -> alt.Chart:
    """The numbers, white or black as their cell is dark or light."""
    low, high = look.domain or (-1.0, 1.0)
    if look.kind == "credit":
        strong = f"abs(datum.value) > {0.55 * high!r}"
    else:
        strong = f"datum.value > {low + 0.55 * (high - low)!r}"
    return (
        base.transform_filter(
            "isValid(datum.value) && !isValid(datum.odd) && datum.shown"
        )
        .mark_text(aria=False, fontSize=9.5)
        .encode(
            text="text:N",
            color=alt.condition(strong, alt.value("white"), alt.value(theme.ink))
            if theme.name == "light"
            else alt.condition(strong, alt.value("#0b0d10"), alt.value(theme.ink)),
        )
    )


def symmetric(values: Float[np.ndarray, "..."]) -> tuple[float, float]:
    """The largest finite value in both directions."""
    sizes = np.abs(values[np.isfinite(values)])
    largest = float(sizes.max(initial=0.0)) or 1.0
    return -largest, largest


def tiles(
    values: Float[np.ndarray, "rows steps"],
    texts: list[list[str]],
    odd: dict[tuple[int, int], str],
    look: Look,
    *,
    least: float = 0.0,
) -> list[dict[str, object]]:
    """The lines that `heat` draws: one for every column and every step of it."""
    columns, rows = look.names
    return [
        {
            "x": columns[at],
            "y": rows[step],
            "value": finite(values[at, step]),
            "text": texts[at][step],
            "shown": bool(abs(values[at, step]) >= least),
            "odd": odd.get((at, step)),
            "column": at,
            "row": step,
        }
        for at in range(len(columns))
        for step in range(len(rows))
    ]


def credit_map(result: Attribution, theme: Theme) -> Chart:
    """Token x layer: what every layer added to every row's level.

    Rows of different units share no scale: each is then drawn as its share of the
    largest credit in its own unit.
    """
    shares, units = len(set(result.units)) > 1, result.units
    values = result.credits
    if shares:
        values = values / scales_of(values, units)[:, None]
    ends = symmetric(values)
    texts = [
        [credit_of(result, row, at) for at in range(len(result.segments))]
        for row in range(result.n_rows)
    ]
    look = Look(
        columns="predicted token",
        rows="layer",
        legend="share of the largest · credit of its unit" if shares else "credit",
        names=(row_labels(result), segment_labels(result.segments)),
        domain=ends,
        digits=result.n_rows <= DIGITS_UP_TO,
    )
    data = tiles(
        values,
        texts,
        odd_cells(result),
        look,
        least=0.005 * ends[1],
    )
    what = unit_words(result.unit).partition(",")[0]
    return titled(
        heat(data, look, theme),
        f"What each layer added to the {what} of each token",
        [method_words(result), _key(data)],
        credit_description(result),
    )


def _key(data: list[dict[str, object]]) -> str:
    """How to read the colours, and the crosses if there are any."""
    said = "Blue adds, orange takes; layers run down, towards the output."
    if any(line["odd"] for line in data):
        said += f" {ODD_SIGN}: flagged, or not a number."
    return said


def credit_description(result: Attribution) -> str:
    """The credit map in words: every row's largest step."""
    names = segment_labels(result.segments)
    said = [
        f"Heat map, {result.n_rows} tokens across, {len(names)} steps of the path "
        f"down; {method_words(result)}."
    ]
    for row in range(min(result.n_rows, 12)):
        sizes = np.nan_to_num(np.abs(result.credits[row]))
        best, unit = int(sizes.argmax()), result.units[row]
        said.append(
            f"{named(result.targets[row])} at {result.positions[row]}: from "
            f"{format_level(result.baseline[row], unit)} to "
            f"{format_level(result.final[row], unit)}, most at layer {names[best]} "
            f"({format_credit(result.credits[row, best], unit)})."
        )
    if result.n_rows > 12:
        said.append(f"And {result.n_rows - 12} more.")
    return " ".join(said)


def level_map(result: Attribution, theme: Theme) -> Chart:
    """Token x layer: the level that the readout gives at every point of the path."""
    values = result.levels
    finite_ones = values[np.isfinite(values)]
    low, high = (
        float(end(finite_ones)) if finite_ones.size else default
        for end, default in ((np.min, 0.0), (np.max, 1.0))
    )
    if set(result.units) == {"probability"}:
        low, high = 0.0, 1.0
    texts = [
        [level_of(result, row, point) for point in range(values.shape[1])]
        for row in range(result.n_rows)
    ]
    unit = " · ".join(dict.fromkeys(unit_words(u) for u in result.units))
    look = Look(
        columns="predicted token",
        rows="after layer",
        legend=unit,
        names=(row_labels(result), point_labels(result)),
        kind="level",
        domain=(low, high),
        digits=result.n_rows <= DIGITS_UP_TO,
    )
    data = tiles(
        values,
        texts,
        odd_levels(result),
        look,
        least=0.005 if (low, high) == (0.0, 1.0) else 0.0,
    )
    return titled(
        heat(data, look, theme),
        "What the readout says of each token after every layer",
        [method_words(result), "Levels do not add up; their differences are credits."],
        f"Heat map of levels, {result.n_rows} tokens across, {values.shape[1]} states "
        f"down, from {low:.3g} to {high:.3g}; {method_words(result)}.",
    )
