"""What lies inside a block: the states between its parts, or parts side by side.

The parts of a *sequential* block follow each other, and the states between them are
points of a path like any other. Those of a *parallel* block read the same state and
are added up: there is no state between them, but one for every order in which they can
be added. A part's credit is then the mean over all orders (the Shapley value).
"""

from dataclasses import dataclass, replace
from itertools import permutations
from math import factorial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ArgumentError
from .mixture import Mixture
from .writing import Writing

MOST_PARALLEL = 4
"""Parts side by side that are taken in all orders; there are `2^n` states to read."""


@dataclass(frozen=True, eq=False)
class Parted:
    """One block of one text, taken apart at the traced positions.

    Attributes:
        kind: Whether its parts follow each other or stand side by side.
        names: What they are, in order: "attention", "mlp", ….
        modules: The module that says so, for display.
        between: Sequential: the states between neighbouring parts. Parallel: the
            vectors that all parts but the last add; the last adds the rest.
        writings: How each part's update is written, or why that is not known; empty
            if it was not asked for.

    Raises:
        ArgumentError: If there are too many parts side by side.
    """

    kind: Literal["sequential", "parallel"]
    names: tuple[str, ...]
    modules: tuple[str | None, ...]
    between: Float[Tensor, "inner rows d_model"]
    writings: tuple[Writing | Mixture | str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what would take too many states."""
        if self.kind == "parallel" and len(self.names) > MOST_PARALLEL:
            raise ArgumentError(
                f"A block adds up {len(self.names)} parts side by side; at most "
                f"{MOST_PARALLEL} can be taken in all orders. Stay at whole layers."
            )

    @property
    def n_inner(self) -> int:
        """States to read besides the ends of the block."""
        n = len(self.names)
        return n - 1 if self.kind == "sequential" else 2**n - 2

    def at(self, rows: slice) -> "Parted":
        """The same at some of the positions."""
        written = (w if isinstance(w, str) else w.at(rows) for w in self.writings)
        return replace(self, between=self.between[:, rows], writings=tuple(written))

    def inner(
        self,
        start: Float[Tensor, "rows d_model"],
        end: Float[Tensor, "rows d_model"],
        rows: slice = slice(None),
    ) -> Float[Tensor, "inner rows d_model"]:
        """The states to read besides the ends of the block.

        Sequential: those between the parts. Parallel: `start` with every selection of
        parts added, selection `s` (from 1) having part `i` where bit `i` of `s` is set.
        """
        given = self.between[:, rows].to(start.dtype)
        if self.kind == "sequential":
            return given
        every = torch.cat([given, (end - start - given.sum(0))[None]])
        picks = range(1, 2 ** len(self.names) - 1)
        return torch.stack([start + every[_members(pick)].sum(0) for pick in picks])

    def strokes(self, part: int) -> list[tuple[int, int, float]]:
        """The straight lines that a part's credit is the weighted mean of.

        Ends are counted as the block's own states are: 0 is its start, `n_inner + 1`
        its end, and `inner` lies between.

        Returns:
            (start, end, weight) for each; the weights sum to 1.
        """
        if self.kind == "sequential":
            return [(part, part + 1, 1.0)]
        n = len(self.names)
        found: dict[int, float] = {}
        for order in permutations(range(n)):
            before = sum(2**other for other in order[: order.index(part)])
            found[before] = found.get(before, 0.0) + 1 / factorial(n)
        return [(before, before + 2**part, weight) for before, weight in found.items()]


def _members(pick: int) -> list[int]:
    """The parts of a selection."""
    return [i for i in range(pick.bit_length()) if pick >> i & 1]
