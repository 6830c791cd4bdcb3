"""What the chosen experts of a mixture give."""

from collections.abc import Callable
from dataclasses import dataclass

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
        outputs: What one slot gives at every row, weight included.
        norm: The post-norm, frozen; None where there is none.
        scale: Factor with which the sum of all slots enters.
    """

    update: Float[Tensor, "rows d_model"]
    ids: Int[Tensor, "rows slots"]
    weights: Float[Tensor, "rows slots"]
    outputs: Callable[[int], Tensor]
    norm: FrozenNorm | None = None
    scale: float = 1.0

    def experts(
        self, gradient: Float[Tensor, "rows d_model"]
    ) -> Float[Tensor, "rows slots"]:
        """Share of the expert in each slot, in float64; one run for each slot."""
        pulled = gradient if self.norm is None else self.norm.pull(gradient)
        found = gradient.new_zeros(self.ids.shape)
        for slot in range(self.ids.shape[1]):
            given = self.outputs(slot).to(pulled)
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
