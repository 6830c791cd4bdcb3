"""The tidy table: one line per row and segment, for other people's tools."""

from typing import TYPE_CHECKING

import numpy as np

from .attribution import Attribution

if TYPE_CHECKING:
    import pyarrow


def tidy_table(attribution: Attribution) -> "pyarrow.Table":
    """Credits in long form, rows after one another, segments in path order.

    Within one `row`, `baseline + credit.sum()` is `final`. The columns:

        prompt        text the user gave; null if it was none
        position      index of the predicted token
        token         text of the target
        unit          unit of the row's levels and credits
        layer         layer the segment ends at
        component     part of the layer, such as "block"
        level         the target's level at the segment's end
        credit        what the segment added
        write         the part of it that the block wrote; the rest is the lens's
        baseline      level of the first point
        final         level of the last state
        model_value   level in the model's own output
        fidelity      total variation between readout and model; NaN if unknown
        module        the model's name for the block; null if unknown
        row           number of the row in the result

    Numbers that are not finite stay what they are.
    """
    import pyarrow

    string = pyarrow.string()
    n_rows, segments = attribution.n_rows, attribution.segments

    def per_row(values: np.ndarray) -> np.ndarray:
        return np.repeat(values, len(segments))

    rows = per_row(np.arange(n_rows))
    texts = pyarrow.array([utf8(t.name) for t in attribution.targets], string)
    prompt = attribution.provenance.prompt
    prompt = None if prompt is None else utf8(prompt)
    columns = {
        "prompt": pyarrow.repeat(pyarrow.scalar(prompt, string), len(rows)),
        "position": per_row(attribution.positions.astype(np.int64)),
        "token": texts.take(pyarrow.array(rows)),
        "unit": pyarrow.array(list(attribution.units), string).take(
            pyarrow.array(rows)
        ),
        "layer": np.tile(np.array(attribution.layers, np.int64), n_rows),
        "component": pyarrow.array([s.part for s in segments] * n_rows, string),
        "level": attribution.levels[:, 1:].ravel(),
        "credit": attribution.credits.ravel(),
        "write": attribution.writes.ravel(),
        "baseline": per_row(attribution.baseline),
        "final": per_row(attribution.final),
        "model_value": per_row(attribution.model_value),
        "fidelity": per_row(attribution.fidelity),
        "module": pyarrow.array([s.module for s in segments] * n_rows, string),
        "row": rows,
    }
    return pyarrow.table(columns)


def utf8(text: str) -> str:
    """The text with "?" for half characters, which UTF-8 does not have."""
    return text.encode("utf-8", "replace").decode()
