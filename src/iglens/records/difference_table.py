"""The tidy table of a difference: one line per pair of rows and segment."""

from typing import TYPE_CHECKING

import numpy as np

from .difference import Difference
from .table import utf8

if TYPE_CHECKING:
    import pyarrow


def difference_table(difference: Difference) -> "pyarrow.Table":
    """Both results and their difference in long form, segments in path order.

    Within one `row`, `baseline + credit.sum()` is `final`; of all three, and of
    `write`, the columns hold the difference `b - a`. The columns:

        prompt_a, prompt_b      texts the user gave; null if they were none
        model_a, model_b        names the models were loaded by
        position_a, position_b  index of the predicted token in either text
        token                   text of the target
        unit                    unit of the row's levels and credits
        layer                   layer the segment ends at
        component               part of the layer, such as "block"
        level_a, level_b        the target's level at the segment's end
        credit_a, credit_b      what the segment added
        credit                  the difference of the two
        write                   the difference of what the block wrote
        baseline                the difference of the first levels
        final                   the difference of the last levels
        noise_floor             difference of two levels that is rounding
        beyond_noise            whether `credit` is more than rounding
        row                     number of the pair

    Numbers that are not finite stay what they are.
    """
    import pyarrow

    a, b, segments = difference.a, difference.b, difference.segments
    n_rows, string = difference.n_rows, pyarrow.string()

    def per_row(values: np.ndarray) -> np.ndarray:
        return np.repeat(values, len(segments))

    rows = per_row(np.arange(n_rows))

    def same(text: str | None) -> "pyarrow.Array":
        shown = None if text is None else utf8(text)
        return pyarrow.repeat(pyarrow.scalar(shown, string), len(rows))

    def texts(values: list[str]) -> "pyarrow.Array":
        return pyarrow.array([utf8(v) for v in values], string).take(
            pyarrow.array(rows)
        )

    return pyarrow.table(
        {
            "prompt_a": same(a.provenance.prompt),
            "prompt_b": same(b.provenance.prompt),
            "model_a": same(a.provenance.model.id),
            "model_b": same(b.provenance.model.id),
            "position_a": per_row(a.positions.astype(np.int64)),
            "position_b": per_row(b.positions.astype(np.int64)),
            "token": texts([target.name for target in difference.targets]),
            "unit": texts(list(difference.units)),
            "layer": np.tile(np.array(difference.layers, np.int64), n_rows),
            "component": pyarrow.array([s.part for s in segments] * n_rows, string),
            "level_a": a.levels[:, 1:].ravel(),
            "level_b": b.levels[:, 1:].ravel(),
            "credit_a": a.credits.ravel(),
            "credit_b": b.credits.ravel(),
            "credit": difference.credits.ravel(),
            "write": difference.writes.ravel(),
            "baseline": per_row(difference.baseline),
            "final": per_row(difference.final),
            "noise_floor": per_row(difference.noise_floor),
            "beyond_noise": difference.beyond_noise.ravel(),
            "row": rows,
        }
    )
