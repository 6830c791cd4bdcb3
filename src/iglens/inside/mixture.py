"""What the chosen experts of a mixture give."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from jaxtyping import Float, Int
from torch import Tensor

from .frozen_norm import FrozenNorm


@dataclass(frozen=True, eq=False)
class Mixture:
    """How the update of a part is a sum over the experts that a router chose.

    Attributes:
        update: The true difference of states.
        ids: Which expert is in each slot.
        weights: The router's weight of each slot.
        outputs: What one slot gives at some of the rows, weight included.
        norm: The post-norm, frozen; None where there is none.
        scale: Factor with which the sum of all slots enters.
    """

    update: Float[Tensor, "rows d_model"]
    ids: Int[Tensor, "rows slots"]
    weights: Float[Tensor, "rows slots"]
    outputs: Callable[[int, slice], Tensor]
    norm: FrozenNorm | None = None
    scale: float = 1.0

    def at(self, rows: slice) -> "Mixture":
        """The same of some rows."""
        first, _, _ = rows.indices(len(self.ids))
        return replace(
            self,
            update=self.update[rows],
            ids=self.ids[rows],
            weights=self.weights[rows],
            outputs=lambda slot, some: self.outputs(
                slot, slice(first + some.start, first + some.stop)
            ),
            norm=None if self.norm is None else self.norm.at_rows(rows),
        )

    def experts(
        self, gradient: Float[Tensor, "rows d_model"]
    ) -> Float[Tensor, "rows slots"]:
        """Share of the expert in each slot, in float64; one run for each slot."""
        pulled = gradient if self.norm is None else self.norm.pull(gradient)
        n_rows, n_slots = self.ids.shape
        found = gradient.new_zeros(n_rows, n_slots)
        for slot in range(n_slots):
            given = self.outputs(slot, slice(0, n_rows)).to(pulled)
            found[:, slot] = (pulled * given).sum(1) * self.scale
        return found

    def others(
        self,
        gradient: Float[Tensor, "rows d_model"],
        shares: Float[Tensor, "rows slots"],
    ) -> Float[Tensor, " rows"]:
        """What is not of the chosen experts: shared experts, offsets, rounding.

        Args:
            gradient: `g`.
            shares: What `experts` gives for it.
        """
        return (gradient * self.update.to(gradient)).sum(1) - shares.sum(1)
