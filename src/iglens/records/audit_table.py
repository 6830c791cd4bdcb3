"""The tidy table of an audit: one line per text and segment."""

from typing import TYPE_CHECKING

import numpy as np

from .audit import Audit
from .table import utf8

if TYPE_CHECKING:
    import pyarrow


def audit_table(audit: Audit) -> "pyarrow.Table":
    """Credits and effects in long form, segments in path order.

    The columns:

        text         number of the prompt, from 0
        prompt       text the user gave; null if it was none
        position     index of the predicted token
        token        text of the target
        unit         unit of levels, credits and effects
        layer        layer the segment ends at
        component    part of the layer, such as "block"
        credit       what the readout credits it with
        effect       level of the whole model minus that without the segment
        update_size  length of what it adds to the predicting state
        gate_effect  its part of the gate path; NaN if that was not asked for
        ledger       `gate_effect - credit`
        intact       level of the whole model

    Numbers that are not finite stay what they are.
    """
    import pyarrow

    n_texts, n_segments = audit.credits.shape
    rows, string = np.repeat(np.arange(n_texts), n_segments), pyarrow.string()
    unknown = np.full((n_texts, n_segments), np.nan)
    gates = unknown if audit.gates is None else audit.gates.effects
    ledger = unknown if audit.ledger is None else audit.ledger

    def texts(values: list[str | None]) -> "pyarrow.Array":
        shown = [None if value is None else utf8(value) for value in values]
        return pyarrow.array(shown, string).take(pyarrow.array(rows))

    positions = np.array([int(result.positions[0]) for result in audit.results])
    layers = np.array([segment.layer for segment in audit.segments], np.int64)
    parts = [segment.part for segment in audit.segments]
    return pyarrow.table(
        {
            "text": rows,
            "prompt": texts([r.provenance.prompt for r in audit.results]),
            "position": positions[rows],
            "token": texts([r.targets[0].name for r in audit.results]),
            "unit": texts([r.unit for r in audit.results]),
            "layer": np.tile(layers, n_texts),
            "component": pyarrow.array(parts * n_texts, string),
            "credit": audit.credits.ravel(),
            "effect": audit.effects.effects.ravel(),
            "update_size": audit.sizes.ravel(),
            "gate_effect": gates.ravel(),
            "ledger": ledger.ravel(),
            "intact": audit.effects.intact[rows],
        }
    )
