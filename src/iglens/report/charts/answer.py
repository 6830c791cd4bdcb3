"""A whole answer: layers x tokens, with both margins that the table adds up to."""

from typing import Any

import altair as alt
import numpy as np
from jaxtyping import Float

from ...errors import ArgumentError
from ...records.answer import Answer
from ..answer import answer_sentence
from ..text import format_credit, format_level, model_name
from ..visible import visible
from .heat import DIGITS_UP_TO, Look, heat, symmetric, tiles
from .theme import Chart, Theme, dressed, layered, source, theme_of, titled
from .words import credit_words, finite, row_labels, segment_labels, shown

UNITS = {"probability": "joint probability", "log_probability": "log-probability, nats"}
"""The tables of an answer, and what each adds up to."""

TOLD = 0.01
"""Sums below this share of the largest go without a number."""


def answer_figure(
    answer: Answer, *, unit: str = "probability", theme: str = "light"
) -> Chart:
    """See `Answer.figure`."""
    dress = theme_of(theme)
    if unit not in UNITS:
        raise ArgumentError(f"`unit` is {unit!r}; known are {', '.join(UNITS)}.")
    joint = unit == "probability"
    cells = answer.credits if joint else answer.log_credits
    layers = answer.joint_credits if joint else answer.joint_log_credits
    names = row_labels(answer.subject), segment_labels(answer.subject.segments)
    texts = "tokens" if len(names[0]) != 1 else "token"
    model = visible(model_name(answer.subject.provenance.model.id))
    chart = titled(
        _table(cells, layers, names, unit, dress),
        answer_sentence(answer),
        [
            f"{model} · {UNITS[unit]} · {visible(answer.subject.lens)} lens",
            f"Blue adds, orange takes. On top what each token has of the whole change, "
            f"at the right what each layer added to all {texts} together: the sums of "
            "columns and rows.",
            *_how(answer, joint=joint),
        ],
        _description(answer, cells, layers, unit),
    )
    return dressed(chart, dress)


def _how(answer: Answer, *, joint: bool) -> list[str]:
    """By which convention a layer's change is shared over tokens, if by any."""
    if not joint:
        return []
    if answer.sharing == "product":
        return ["Shared in token order: nearly everything goes to the last token."]
    return ["Each layer's change is shared over the tokens by the logarithmic mean."]


def _description(
    answer: Answer,
    cells: Float[np.ndarray, "tokens segments"],
    layers: Float[np.ndarray, " segments"],
    unit: str,
) -> str:
    """The table in words: its largest margins."""
    names = segment_labels(answer.subject.segments)
    best = np.argsort(-np.nan_to_num(np.abs(layers)), kind="stable")[:3]
    moved = ", ".join(f"layer {names[i]} {credit_words(layers[i], unit)}" for i in best)
    sums = cells.sum(1)
    order = np.argsort(-np.nan_to_num(np.abs(sums)), kind="stable")[:5]
    shares = ", ".join(
        f"'{shown(answer.texts[t])}' {credit_words(sums[t], unit)}" for t in order
    )
    level = format_level(float(answer.joint[-1]), "probability")
    return (
        f"Heat map of the answer's {UNITS[unit]}, {len(answer.texts)} tokens across, "
        f"{len(names)} steps down; joint probability {level} in the end. Largest "
        f"layers: {moved}. Largest tokens: {shares}."
    )


def _table(
    cells: Float[np.ndarray, "tokens segments"],
    layers: Float[np.ndarray, " segments"],
    names: tuple[list[str], list[str]],
    unit: str,
    theme: Theme,
) -> alt.VConcatChart:
    """Cells in the middle, sums of columns above and sums of rows beside them."""
    space = "probability" if unit == "probability" else "nats"
    ends = symmetric(cells)
    look = Look(
        columns="token of the answer",
        rows="layer",
        legend="share" if unit == "probability" else "credit",
        names=names,
        domain=ends,
        digits=len(names[0]) <= DIGITS_UP_TO,
        key=False,
    )
    reasons = {
        (int(row), int(at)): "not a finite number: a level next to it is none"
        for row, at in np.argwhere(~np.isfinite(cells))
    }
    texts = [[format_credit(v, space) for v in row] for row in cells.tolist()]
    middle = heat(
        tiles(cells, texts, reasons, look, least=0.005 * ends[1]), look, theme
    )
    tokens = _margin(cells.sum(1), names[0], space, theme, across=True)
    rows = _margin(layers, names[1], space, theme, across=False)
    above = tokens.properties(width=middle.width, height=64)
    beside = rows.properties(width=110, height=middle.height)
    below = alt.hconcat(middle, beside, spacing=12, bounds="flush")
    return alt.vconcat(above, below, spacing=10, bounds="flush")


def _margin(
    sums: Float[np.ndarray, " cells"],
    names: list[str],
    unit: str,
    theme: Theme,
    *,
    across: bool,
) -> alt.LayerChart:
    """Bars of sums, in line with the cells that they are sums of."""
    data: list[dict[str, object]] = [
        {
            "name": name,
            "credit": finite(value),
            "kind": "adds" if value >= 0 else "takes",
            "text": credit_words(value, unit),
        }
        for name, value in zip(names, sums.tolist(), strict=True)
    ]
    size = symmetric(sums)[1]
    place = alt.X if across else alt.Y
    length = alt.Y if across else alt.X
    base = alt.Chart(source(data)).encode(
        place("name:N", sort=None, axis=None, scale=alt.Scale(domain=names)),
        length(
            "credit:Q",
            title=None,
            axis=None,
            scale=alt.Scale(domain=_room(sums), nice=False),
        ),
        tooltip=[
            alt.Tooltip("name:N", title="token" if across else "layer"),
            alt.Tooltip("credit:Q", title="sum", format="+.4g"),
        ],
    )
    colour = alt.Color(
        "kind:N",
        legend=None,
        scale=alt.Scale(domain=["adds", "takes"], range=[theme.gain, theme.loss]),
    )
    thick: dict[str, Any] = (
        {"width": {"band": 0.72}} if across else {"height": {"band": 0.72}}
    )
    bars = base.mark_bar(aria=False, **thick).encode(color=colour)
    ups: dict[str, Any] = (
        {"baseline": "bottom", "dy": -3} if across else {"align": "left", "dx": 4}
    )
    downs: dict[str, Any] = (
        {"baseline": "top", "dy": 3} if across else {"align": "right", "dx": -4}
    )
    told = [
        base.transform_filter(
            f"datum.credit {sign} && abs(datum.credit) > {TOLD * size!r}"
        )
        .mark_text(aria=False, fontSize=9.5, color=theme.ink, **where)
        .encode(text="text:N")
        for sign, where in ((">= 0", ups), ("< 0", downs))
    ]
    few = len(names) <= DIGITS_UP_TO or not across
    return layered(bars, *(told if few else []), width=100, height=100)


def _room(sums: Float[np.ndarray, " cells"]) -> list[float]:
    """The ends of a margin: its bars, and what their numbers need."""
    least = TOLD * symmetric(sums)[1]
    low, high = (
        min([0.0, *sums[sums < -least].tolist()]),
        max([0.0, *sums[sums > least].tolist()]),
    )
    space = 0.45 * max(-low, high) or 1.0
    return [low - space * (low < 0), high + space * (high > 0 or not low)]
