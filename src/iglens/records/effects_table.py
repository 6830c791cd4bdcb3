"""The tidy table of effects: one line per row and segment."""

from typing import TYPE_CHECKING

import numpy as np

from .effects import Effects
from .table import utf8

if TYPE_CHECKING:
    import pyarrow


def effects_table(effects: Effects) -> "pyarrow.Table":
    """Effects and credits in long form, segments in path order.

    The columns:

        row          number of the row, from 0
        prompt       text the user gave; null if it was none
        position     index of the predicted token
        token        text of the target
        unit         unit of levels, credits and effects
        kind         how the effect was taken, such as "gates"
        layer        layer the segment ends at
        component    part of the layer, such as "block"
        effect       what the segment does in the whole model
        credit       what the readout credits it with
        ledger       `effect - credit`
        intact       level of the model as it is
        removed      level with every segment taken out
        module       the model's name for the block; null if unknown

    Numbers that are not finite stay what they are.
    """
    import pyarrow

    n_rows, n_segments = effects.effects.shape
    rows, string = np.repeat(np.arange(n_rows), n_segments), pyarrow.string()
    prompts = [r.provenance.prompt for r in effects.results for _ in r.targets]

    def words(values: list[str | None]) -> "pyarrow.Array":
        shown = [None if value is None else utf8(value) for value in values]
        return pyarrow.array(shown, string).take(pyarrow.array(rows))

    segments = effects.segments
    names = {
        "component": [segment.part for segment in segments],
        "module": [segment.module for segment in segments],
    }
    repeated = {
        name: pyarrow.array(own * n_rows, string) for name, own in names.items()
    }
    layers = np.array([segment.layer for segment in segments], np.int64)
    return pyarrow.table(
        {
            "row": rows,
            "prompt": words(prompts),
            "position": np.array(effects.positions)[rows],
            "token": words([target.name for target in effects.targets]),
            "unit": words([effects.unit] * n_rows),
            "kind": words([effects.kind] * n_rows),
            "layer": np.tile(layers, n_rows),
            "component": repeated["component"],
            "effect": effects.effects.ravel(),
            "credit": effects.credits.ravel(),
            "ledger": effects.ledger.ravel(),
            "intact": effects.intact[rows],
            "removed": effects.removed[rows],
            "module": repeated["module"],
        }
    )
