"""Bars of credits: attention against MLP, the largest heads or neurons, the rest."""

from collections.abc import Sequence

import altair as alt
import numpy as np

from ...errors import ArgumentError
from ...records import Attribution
from ...records.components import NUMBERED, Components
from ..text import format_credit
from .theme import Chart, Data, Theme, layered, source, titled
from .words import (
    credit_words,
    distinct,
    finite,
    method_words,
    named,
    shown,
    unit_words,
)

LISTED = 14
"""So many parts get a bar of their own."""

_MANY = {"source": "(head, token) pairs"}


def components_figure(result: Attribution, row: int, theme: Theme) -> Chart:
    """The largest parts of one row, and in few bars all others; they add up.

    Without components, the parts of the path itself: attention, MLP, whole layers.

    Raises:
        ArgumentError: If the path goes through whole layers only.
    """
    inside, unit = result.components, result.units[row]
    pairs = path_parts(result, row) if inside is None else parts(result, inside, row)
    data = bars(pairs, unit)
    by = "part of the blocks" if inside is None else inside.by
    told = ", ".join(f"{line['y']} {line['text']}" for line in data[:6])
    return titled(
        bar_chart(data, unit_words(unit), len(data), theme),
        f"What {named(result.targets[row])} is made of, by {by}",
        [
            f"position {result.positions[row]} · {method_words(result)}",
            *_notes(inside),
        ],
        f"Bars of credit by {by}: {told}. They add up to "
        f"{format_credit(float(result.credits[row].sum()), unit)}.",
    )


def _notes(inside: Components | None) -> list[str]:
    """How far the shares can be trusted."""
    if inside is None:
        return ["Summed over all layers."]
    word = "Certified" if inside.certified else "NOT certified"
    return [f"{word} to {inside.tolerance:.1g} on any part; bars add up to the change."]


def path_parts(result: Attribution, row: int) -> list[tuple[str, float]]:
    """What attention, MLP and so on have of a row, all layers together.

    Raises:
        ArgumentError: If the path goes through whole layers only.
    """
    if not any(segment.is_part for segment in result.segments):
        raise ArgumentError(
            "This result has no parts to draw: make it with `by='sublayer'`, 'head', "
            "'neuron' or 'source' (`--by` on the command line)."
        )
    sums: dict[str, float] = {}
    for segment, credit in zip(
        result.segments, result.credits[row].tolist(), strict=True
    ):
        sums[segment.part] = sums.get(segment.part, 0.0) + credit
    return sorted(sums.items(), key=lambda pair: -abs(pair[1]))


def parts(
    result: Attribution, inside: Components, row: int, only: Sequence[int] | None = None
) -> list[tuple[str, float]]:
    """The largest parts, then everything else by what it is.

    Args:
        result: What was explained.
        inside: Its components.
        row: Which row.
        only: Segments to stay inside of; None for all.
    """
    within = set(range(len(result.segments)) if only is None else only)
    own = [i for i, s in enumerate(inside.segments.tolist()) if s in within]
    listed = [i for i in inside.largest(row, len(inside.kinds)) if i in set(own)]
    listed, credits = listed[:LISTED], inside.credits[row]
    found = [(part_name(result, inside, row, i), float(credits[i])) for i in listed]
    groups: dict[str, float] = {}
    for part in own:
        kind = inside.kinds[part]
        if part not in set(listed):
            many = f"other {_MANY.get(kind, f'{kind}s')}" if kind in NUMBERED else kind
            groups[many] = groups.get(many, 0.0) + float(credits[part])
    for segment in within:
        opened = bool(inside.n_parts[segment])
        name = "not listed" if opened else f"{result.segments[segment].part}, unopened"
        groups[name] = groups.get(name, 0.0) + float(inside.others[row, segment])
    largest = max([0.0, *(abs(credit) for _, credit in found)])
    rest = [(n, c) for n, c in groups.items() if not abs(c) <= 1e-4 * largest]
    return found + rest


def part_name(result: Attribution, inside: Components, row: int, part: int) -> str:
    """What to call a part: its layer, what it is, and the token it reads."""
    shape = inside.credits.shape
    index = int(np.broadcast_to(inside.indices, shape)[row, part])
    token = int(np.broadcast_to(inside.sources, shape)[row, part])
    kind = "head" if inside.kinds[part] == "source" else inside.kinds[part]
    name = f"{result.segments[inside.segments[part]].layer} {kind}"
    name += f" {index}" if index >= 0 else ""
    if token >= 0:
        name += f" ← {token} {shown(result.token_texts[token], 10)}"
    return name


def bars(pairs: Sequence[tuple[str, float]], unit: str) -> list[dict[str, object]]:
    """The lines that `bar_chart` draws."""
    names = distinct(name for name, _ in pairs)
    return [
        {
            "y": name,
            "credit": finite(credit),
            "kind": "adds" if credit >= 0 else "takes",
            "text": credit_words(credit, unit),
        }
        for name, (_, credit) in zip(names, pairs, strict=True)
    ]


def bar_chart(data: Data, unit: str, n: int, theme: Theme) -> alt.LayerChart:
    """Horizontal bars with their numbers, in the order of the lines.

    Args:
        data: Lines as `bars` gives them.
        unit: What the horizontal axis is.
        n: How many lines there are; sets the height.
        theme: Its dress.
    """
    base = alt.Chart(source(data)).encode(
        y=alt.Y("y:N", sort=None, title=None, axis=alt.Axis(ticks=False, domain=False)),
        tooltip=[
            alt.Tooltip("y:N", title="part"),
            alt.Tooltip("credit:Q", format="+.4g"),
        ],
    )
    x = alt.X(
        "credit:Q",
        title=f"credit, {unit}",
        axis=alt.Axis(tickCount=5, domain=False, ticks=False),
        scale=alt.Scale(nice=False, padding=56),
    )
    colours = alt.Color(
        "kind:N",
        legend=None,
        scale=alt.Scale(domain=["adds", "takes"], range=[theme.gain, theme.loss]),
    )
    rects = base.mark_bar(aria=False, height={"band": 0.72}).encode(x=x, color=colours)
    numbers = end_numbers(base, x, "credit", theme)
    zero = alt.Chart().mark_rule(aria=False, color=theme.soft, strokeWidth=0.7)
    return layered(
        rects, *numbers, zero.encode(x=alt.datum(0)), width=420, height=max(40, n * 19)
    )


def end_numbers(
    base: alt.Chart, x: alt.X, field: str, theme: Theme
) -> tuple[alt.Chart, alt.Chart]:
    """The numbers of bars, behind their ends.

    Args:
        base: The bars' data and vertical axis; its lines have a `text`.
        x: The bars' horizontal axis.
        field: What the bars show.
        theme: Its dress.
    """
    right = base.transform_filter(f"datum.{field} >= 0").mark_text(
        aria=False, align="left", dx=5, color=theme.ink
    )
    left = base.transform_filter(f"datum.{field} < 0").mark_text(
        aria=False, align="right", dx=-5, color=theme.ink
    )
    return right.encode(x=x, text="text:N"), left.encode(x=x, text="text:N")
