"""The gate path for people: who prepares a prediction, and who cashes in."""

from collections.abc import Iterator

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..records.effects import Effects
from .text import format_credit, format_level, target_name
from .visible import visible

TOLD = 3
"""Segments told of either side of the ledger, at most."""

HEADS = ("layer", "credit", "gates", "ledger")


def lines(effects: Effects) -> list[str]:
    """Everything but the tables, in plain lines."""
    said = [heading(effects)]
    said += [sentence(effects, row) for row in range(len(effects.effects))]
    return [*said, *footer(effects)]


def heading(effects: Effects) -> str:
    """Model, unit and path, in one line."""
    model = effects.results[0].provenance.model
    pieces = [visible(model.id), f"{len(effects.segments)} gates opened together"]
    return " · ".join([*pieces, effects.unit, "from the embedding"])


def sentence(effects: Effects, row: int) -> str:
    """What each end of the model says of one row, and both sides of its ledger."""
    unit = effects.unit
    intact, removed = (
        format_level(float(side[row]), unit)
        for side in (effects.intact, effects.removed)
    )
    said = (
        f"{target_name(effects.targets[row])} at {effects.positions[row]}: {intact} "
        f"with all gates open, {removed} with all closed."
    )
    ledger = effects.ledger[row]
    for verb, sign in (("Prepare", 1), ("Cash in", -1)):
        order = np.argsort(-sign * ledger, kind="stable")[:TOLD]
        found = [
            f"{_name(effects, at)} ({format_credit(float(ledger[at]), unit)})"
            for at in order.tolist()
            if sign * ledger[at] > 0
        ]
        if found:
            said += f" {verb}: {', '.join(found)}."
    return said


def footer(effects: Effects) -> Iterator[str]:
    """What the numbers are, and how sure they are."""
    yield (
        "gates: what a layer adds while all of them open together, through later "
        "layers too; credit: what became readable there; ledger: gates less credit, "
        "positive where a layer prepares, negative where it cashes in. Half-gated "
        "models are off the distribution they were made for."
    )
    closed, apart, sums = (
        float(np.abs(side).max(initial=0.0))
        for side in (effects.closed, effects.apart, effects.ledger.sum(1))
    )
    word = "Certified" if effects.certified.all() else "NOT certified"
    yield (
        f"{word} to {effects.tolerance:.1g}: sum off by {closed:.1g} before it was "
        f"closed, two rules differ by {apart:.1g}; {sum(effects.runs)} runs. The "
        f"ledger sums to zero within {sums:.1g}."
    )


def cells(effects: Effects, row: int) -> list[list[str]]:
    """Layers down: credit, effect and their difference."""
    columns = (effects.credits, effects.effects, effects.ledger)
    return [
        [
            _name(effects, at).removeprefix("layer "),
            *(format_credit(float(one[row, at]), effects.unit) for one in columns),
        ]
        for at in range(len(effects.segments))
    ]


def render(effects: Effects) -> RenderableType:
    """Every row's sentence and table, for a terminal."""
    pieces: list[RenderableType] = [Text(heading(effects), style="dim"), Text()]
    for row in range(len(effects.effects)):
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        for head in HEADS:
            table.add_column(head, justify="right")
        for line in cells(effects, row):
            table.add_row(*map(Text, line))
        pieces += [Text(sentence(effects, row)), Text(), table, Text()]
    return Group(*pieces, *(Text(line, style="dim") for line in footer(effects)))


def _name(effects: Effects, at: int) -> str:
    """A segment in a few words."""
    segment = effects.segments[at]
    part = f" {segment.part}" if segment.is_part else ""
    return visible(f"layer {segment.layer}{part}")
