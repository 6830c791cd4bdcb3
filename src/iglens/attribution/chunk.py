"""Neighbouring positions whose paths are read in one pass."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..readout import AbstractReadout
from ..records import Target
from .path import Path
from .rows import Rows
from .scalar import Scalar

POINTS_AT_ONCE = 2048
"""States per streamed pass: more no longer speed the matrix product up."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """Neighbouring positions whose paths are read in one pass.

    Attributes:
        states: All points of their paths, as they are read.
        starts: Where every segment starts, through the map of the layer it ends at;
            None where that is where it starts anyway.
        tokens: The tokens wanted at each position.
        place: Position within the chunk that each result row reads.
        chosen: Slots that make up each result row's target.
        against: Slots it is contrasted with.
        targets: What each result row explains.
        scalars: The user's scalar of each result row that explains one.
    """

    states: Float[Tensor, "points paths d_model"]
    starts: Float[Tensor, "segments paths d_model"] | None
    tokens: Int[Tensor, "paths slots"]
    place: Int[Tensor, " rows"]
    chosen: Bool[Tensor, "rows slots"]
    against: Bool[Tensor, "rows slots"]
    targets: tuple[Target, ...]
    scalars: tuple[Scalar | None, ...]

    @property
    def flat_states(self) -> Float[Tensor, "all d_model"]:
        """All states, point-major."""
        return self.states.flatten(0, 1)

    @property
    def flat_tokens(self) -> Int[Tensor, "all slots"]:
        """The wanted tokens of all states, point-major."""
        return self.tokens.repeat(len(self.states), 1)

    @cached_property
    def of_kind(self) -> np.ndarray:
        """Kind of every row's target."""
        return np.array([target.kind for target in self.targets])

    @cached_property
    def whole(self) -> tuple[int, ...]:
        """Rows that explain a scalar of the whole distribution."""
        return tuple(i for i, target in enumerate(self.targets) if not target.of_tokens)

    @property
    def prunable(self) -> Bool[Tensor, " all"]:
        """Points that may be finished early where they are certified to be small.

        None at the ends of paths, and none of a contrast or a scalar of the whole
        distribution, nor of what else is read from the same states.
        """
        whole = torch.zeros_like(self.against[:, 0])
        whole[list(self.whole)] = True
        exact = torch.zeros_like(self.tokens[:, 0], dtype=torch.bool)
        exact[self.place[whole | self.against.any(1)]] = True
        inner = torch.ones_like(self.states[:, 0, 0], dtype=torch.bool)
        inner[[0, -1]] = False
        return (inner[:, None] & ~exact).flatten()

    def of_rows(self, values: Tensor) -> Tensor:
        """Values of all states, picked for the result rows: points x rows x …."""
        return values.unflatten(0, (-1, self.states.shape[1]))[:, self.place]


def points_at_once(readout: AbstractReadout, memory_budget: int) -> int:
    """States of a streamed pass: a quarter of the budget is for normed ones."""
    return min(POINTS_AT_ONCE, readout.points_within(memory_budget // 4))


def chunks(path: Path, rows: Rows, at_once: int) -> Iterator[Chunk]:
    """The positions that have rows, a few at a time."""
    for part in path.row_chunks(len(rows.tokens), at_once):
        inside = (rows.place >= part.start) & (rows.place < part.stop)
        if bool(inside.any()):
            members = inside.nonzero().flatten().tolist()
            yield Chunk(
                path.states(part),
                None if path.lens is None else path.starts(part),
                rows.tokens[part],
                rows.place[inside] - part.start,
                rows.chosen[inside],
                rows.against[inside],
                tuple(rows.targets[i] for i in members),
                tuple(rows.scalars[i] for i in members),
            )
