"""Columns of a store as arrays: what statistics are made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from ..errors import ArtifactError
from ..records.estimates import DEPTHS

if TYPE_CHECKING:
    import pyarrow

NEEDED = [
    "index",
    "unit",
    "levels",
    "credits",
    "correct",
    "fidelity",
    *DEPTHS,
    "churn",
    "overshoot",
    "flags",
]
"""Columns that are read."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of a store.

    Attributes:
        prompts: Row of the input that each comes from.
        units: Unit of each.
        levels: Levels at every point.
        credits: Credits of every segment.
        correct: 1 for correct, 0 for wrong, NaN where that has no meaning.
        fidelity: Fidelity of each.
        depths: Layers, in the order of `DEPTHS`; NaN where there are none.
        churn: Churn; NaN where there is none.
        overshoot: Overshoot; NaN where there is none.
        flags: What is odd about each.
    """

    prompts: Int[np.ndarray, " rows"]
    units: np.ndarray
    levels: Float[np.ndarray, "rows points"]
    credits: Float[np.ndarray, "rows segments"]
    correct: Float[np.ndarray, " rows"]
    fidelity: Float[np.ndarray, " rows"]
    depths: Float[np.ndarray, "rows depths"]
    churn: Float[np.ndarray, " rows"]
    overshoot: Float[np.ndarray, " rows"]
    flags: Sequence[Sequence[str]]

    @classmethod
    def of(cls, batch: "pyarrow.RecordBatch", n_segments: int) -> "Rows":
        """The rows of a batch.

        Raises:
            ArtifactError: If their lists are not as long as the path.
        """
        return cls(
            batch.column("index").to_numpy(),
            np.array(batch.column("unit").to_pylist()),
            _lists(batch, "levels", n_segments + 1),
            _lists(batch, "credits", n_segments),
            _numbers(batch, "correct"),
            _numbers(batch, "fidelity"),
            np.column_stack([_numbers(batch, name) for name in DEPTHS]),
            _numbers(batch, "churn"),
            _numbers(batch, "overshoot"),
            batch.column("flags").to_pylist(),
        )

    @property
    def finite(self) -> Bool[np.ndarray, " rows"]:
        """Rows whose levels and credits are all numbers."""
        parts = (self.levels, self.credits)
        return np.asarray(np.logical_and(*(np.isfinite(p).all(1) for p in parts)))


def _numbers(batch: "pyarrow.RecordBatch", name: str) -> Float[np.ndarray, " rows"]:
    """A column as float64; NaN where it is empty."""
    import pyarrow

    column = batch.column(name)
    if pyarrow.types.is_boolean(column.type):
        column = column.cast(pyarrow.uint8())
    return np.asarray(column.cast(pyarrow.float64()).to_numpy(zero_copy_only=False))


def _lists(
    batch: "pyarrow.RecordBatch", name: str, length: int
) -> Float[np.ndarray, "rows entries"]:
    """A column of lists of one length."""
    column = batch.column(name)
    found = np.asarray(column.flatten().to_numpy(zero_copy_only=False))
    sizes = set(column.value_lengths().to_pylist())
    if sizes - {length}:
        raise ArtifactError(
            f"The run's `{name}` have {sorted(map(str, sizes))} entries per row, but "
            f"its path needs {length}: shards of different paths are in one folder."
        )
    return found.reshape(len(column), length)
