"""A target against its rivals: their probabilities, state by state."""

import altair as alt
import numpy as np
from jaxtyping import Float

from ...errors import ArgumentError
from ...records import Attribution
from .theme import Chart, Data, Theme, layered, source, titled
from .words import distinct, finite, method_words, named, point_labels, shown

RIVALS = 5
"""So many other tokens are followed, those that came highest anywhere."""

_DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 4], [1, 3])


def trajectory(result: Attribution, row: int, theme: Theme) -> Chart:
    """The target's probability after every layer, and that of its strongest rivals.

    A rival is drawn where it is among the likeliest tokens that the result lists for a
    state; where it is not, its line is broken.

    Raises:
        ArgumentError: If the target has no probability.
    """
    data = lines_of_tokens(result, row)
    names = list(dict.fromkeys(str(line["name"]) for line in data))
    labels = state_labels(result)
    n_top = result.top_ids.shape[2]
    note = f"Rivals where they are among the {n_top} likeliest."
    if not n_top:
        note = "No rivals: this result was made without diagnostics."
    peaks = ", ".join(
        f"{name} up to {max(float(str(p['value'])) for p in points):.3g}"
        for name in names
        if (points := [p for p in data if p["name"] == name and p["value"] is not None])
    )
    return titled(
        trajectory_chart(data, names, labels, theme),
        f"{named(result.targets[row])} and its rivals, layer by layer",
        [f"position {result.positions[row]} · {method_words(result)}", note],
        f"Lines of probability after every layer: {peaks}. {note}",
    )


def lines_of_tokens(result: Attribution, row: int) -> list[dict[str, object]]:
    """Every point of every line, the target's first.

    Raises:
        ArgumentError: If the target has no probability.
    """
    target, labels = result.targets[row], state_labels(result)
    lines = [(named(target), probabilities(result, row))]
    lines += [
        (
            f"'{shown(result.vocabulary.get(token, str(token)))}'",
            followed(result, row, token),
        )
        for token in rivals(result, row)
    ]
    names = distinct(name for name, _ in lines)
    return [
        {
            "x": labels[point],
            "name": name,
            "value": finite(value),
            "target": name == names[0],
        }
        for name, (_, values) in zip(names, lines, strict=True)
        for point, value in enumerate(values.tolist())
    ]


def state_labels(result: Attribution) -> list[str]:
    """The states, the first one short."""
    return ["start", *point_labels(result)[1:]]


def probabilities(result: Attribution, row: int) -> Float[np.ndarray, " points"]:
    """The target's probability at every point, whatever the unit.

    Raises:
        ArgumentError: If it has none: a contrast, an entropy, a raw logit.
    """
    target, levels = result.targets[row], result.levels[row].astype(np.float64)
    if target.kind not in ("token", "set") or result.unit == "logit":
        raise ArgumentError(
            f"`row` {row} explains {named(target)} in {result.unit}, which is no "
            "probability: a trajectory against rivals needs a token or a set."
        )
    if result.unit == "probability":
        return levels
    with np.errstate(under="ignore", invalid="ignore"):
        if result.unit == "log_probability":
            return np.exp(levels)
        return np.exp(-np.logaddexp(0.0, -levels))


def rivals(result: Attribution, row: int) -> list[int]:
    """Other tokens, those first that came highest at any point."""
    own = set(result.targets[row].ids)
    best: dict[int, float] = {}
    ids, values = result.top_ids[row].ravel(), result.top_probabilities[row].ravel()
    for token, value in zip(ids.tolist(), values.tolist(), strict=True):
        if token not in own and np.isfinite(value):
            best[token] = max(best.get(token, 0.0), value)
    return sorted(best, key=lambda token: -best[token])[:RIVALS]


def followed(result: Attribution, row: int, token: int) -> Float[np.ndarray, " points"]:
    """A token's probability where the result lists it; NaN elsewhere."""
    found = np.full(result.levels.shape[1], np.nan)
    points, places = np.nonzero(result.top_ids[row] == token)
    found[points] = result.top_probabilities[row, points, places]
    return found


def trajectory_chart(
    data: Data, names: list[str], labels: list[str], theme: Theme
) -> alt.LayerChart:
    """The picture, for lines as `lines_of_tokens` gives them.

    Args:
        data: The lines.
        names: What the lines are of, the target first; no names for those of the data.
        labels: The states, in order; no labels for those of the data.
        theme: Its dress.
    """
    palette = [theme.gain, *theme.others][: len(names) or None]
    dashes = list(_DASHES[: len(names) or None])
    domain = names or alt.Undefined
    base = alt.Chart(source(data)).encode(
        x=alt.X(
            "x:N",
            sort=labels or None,
            title="after layer",
            axis=alt.Axis(
                labelAngle=0, labelOverlap="greedy", labelSeparation=5, ticks=False
            ),
            scale=alt.Scale(padding=0.2),
        ),
        y=alt.Y(
            "value:Q",
            title="probability",
            scale=alt.Scale(domain=[0, 1]),
            axis=alt.Axis(tickCount=5, domain=False, ticks=False),
        ),
        color=alt.Color(
            "name:N",
            title=None,
            sort=None,
            scale=alt.Scale(domain=domain, range=palette),
            legend=alt.Legend(orient="right", symbolType="stroke", symbolSize=260),
        ),
        strokeDash=alt.StrokeDash(
            "name:N",
            title=None,
            sort=None,
            scale=alt.Scale(domain=domain, range=dashes),
        ),
    )
    tips = [
        alt.Tooltip("name:N", title="token"),
        alt.Tooltip("x:N", title="after layer"),
        alt.Tooltip("value:Q", title="probability", format=".4g"),
    ]
    thick = alt.condition("datum.target", alt.value(3.2), alt.value(1.6))
    lines = base.mark_line(aria=False, interpolate="linear").encode(strokeWidth=thick)
    dots = base.mark_point(aria=False, filled=True, opacity=1).encode(
        tooltip=tips,
        size=alt.condition("datum.target", alt.value(30), alt.value(16)),
        strokeDash=alt.value([1, 0]),
    )
    return layered(lines, dots, width=560, height=280)
