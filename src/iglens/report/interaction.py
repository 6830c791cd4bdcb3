"""What parts of blocks do only together, in plain lines."""

from collections.abc import Iterator

import numpy as np

from ..records.interaction import Interaction
from .text import exact_credit, target_name

TOLD = 5
"""Blocks that are told per row, those with the largest interaction."""

MATTERS = 0.02
"""Share of the largest interaction below which none is told."""


def lines(found: Interaction) -> list[str]:
    """Per row the largest interactions, with what each part would do alone."""
    told = []
    for row, target in enumerate(found.subject.targets):
        position = found.subject.positions[row]
        told.append(f"{target_name(target)} at {position}, parts of a layer together:")
        told += [f"  {line}" for line in _row(found, row)]
    return [*told, "Alone: added to what enters the layer, without the other parts."]


def _row(found: Interaction, row: int) -> Iterator[str]:
    """One line for each of the layers that matter most."""
    unit = found.subject.targets[row].space or found.unit
    sizes = np.nan_to_num(np.abs(found.interaction[row]))
    for index in sorted(np.argsort(-sizes, kind="stable")[:TOLD].tolist()):
        if sizes[index] < MATTERS * sizes.max():
            continue
        layer = found.layers[index]
        alone = ", ".join(
            f"{segment.part} {exact_credit(float(found.alone[row, at]), unit)}"
            for at, segment in enumerate(found.subject.segments)
            if segment.layer == layer
        )
        extra = exact_credit(float(found.interaction[row, index]), unit)
        yield f"layer {layer}: {extra} beyond the parts alone ({alone})"
