"""What layers do in the whole model beside what the readout credits them with."""

import altair as alt
import numpy as np

from ...errors import ArgumentError
from ...records.effects import Effects
from ..text import model_name
from ..visible import visible
from .audit import dots
from .bars import bar_chart, bars
from .theme import Chart, dressed, theme_of, titled
from .words import credit_words, named, segment_labels, unit_words

WAYS = {
    "gates": "all gates opened together, through later layers too",
    "skip": "without the layer",
    "mean": "with the layer's mean update in its place",
}
"""What was done, by kind."""


def effects_figure(found: Effects, *, row: int = 0, theme: str = "light") -> Chart:
    """See `Effects.figure`."""
    dress, n_rows = theme_of(theme), len(found.effects)
    if not -n_rows <= row < n_rows:
        raise ArgumentError(
            f"`row` is {row}, but this result has {n_rows} rows, from 0."
        )
    at, unit = row % n_rows, found.unit
    labels, target = segment_labels(found.segments), found.targets[row]
    name = "gates" if found.kind == "gates" else "effect"
    both = {"credit": found.credits[at], name: found.effects[at]}
    pairs = [*zip(labels, found.ledger[at].tolist(), strict=True)]
    size = float(np.nan_to_num(np.abs(found.ledger[at])).max(initial=0.0))
    data = [
        line | ({} if abs(ledger) >= 0.02 * size else {"text": ""})
        for line, (_, ledger) in zip(bars(pairs, unit), pairs, strict=True)
    ]
    left = dots(labels, both, unit, dress, width=330)
    right = bar_chart(data, unit_words(unit), len(data), dress).properties(
        width=230,
        height=left.height,
        title=alt.TitleParams(text=f"ledger: {name} less credit", fontSize=12),
    )
    left = left.properties(title=alt.TitleParams(text="by layer", fontSize=12))
    order = np.argsort(-found.ledger[at], kind="stable")
    chart = titled(
        alt.hconcat(left, right, spacing=26).resolve_scale(
            color="independent", shape="independent"
        ),
        f"Who prepares {named(target)}, and who cashes in"
        if found.kind == "gates"
        else f"What {named(target)} loses, beside what became readable",
        [
            f"position {found.positions[at]} · "
            f"{visible(model_name(found.results[0].provenance.model.id))} · "
            f"{unit_words(unit)} · {WAYS[found.kind]}",
            *_certificate(found, at),
        ],
        f"Dots of credit and {name} by layer, and bars of their difference. Prepares "
        f"most: layer {labels[order[0]]} "
        f"({credit_words(found.ledger[at, order[0]], unit)}); cashes in most: layer "
        f"{labels[order[-1]]} ({credit_words(found.ledger[at, order[-1]], unit)}).",
    )
    return dressed(chart, dress)


def _certificate(found: Effects, row: int) -> list[str]:
    """How to read it, and how sure it is."""
    if found.kind != "gates":
        return ["Effects need not add up. Models without a block are off distribution."]
    word = "Certified" if found.certified[row] else "NOT certified"
    return [
        "Above zero a layer prepares what later ones make readable, below it makes "
        f"readable what was prepared; sum {found.ledger[row].sum():.1g}.",
        f"{word} to {found.tolerance:.1g}. Half-gated models are off the distribution "
        "they were made for.",
    ]
