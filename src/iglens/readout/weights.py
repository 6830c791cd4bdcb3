"""How much a level depends on each logit: `target`, differentiated logit by logit.

A level is a function of a few tokens' logits and of the log-sum-exp of all others. So
its derivative by the logit of any other token is one number, common to all of them,
times that token's share of the others.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..records.target import Unit
from .streamed import TokenLogits
from .target import inside, level, level_slope, margin


@dataclass(frozen=True, eq=False)
class Weighed:
    """A scalar of the logits at some points, and its derivatives.

    Attributes:
        value: The scalar.
        slots: Its derivative by the logit of every wanted token.
        rest: Its derivative by the log-sum-exp of all others.
    """

    value: Float[Tensor, " points"]
    slots: Float[Tensor, "points slots"]
    rest: Float[Tensor, " points"]

    def slope(self, changes: TokenLogits) -> Float[Tensor, " points"]:
        """Its derivative along a line, from those of the logits."""
        own = torch.where(self.slots == 0, 0.0, self.slots * changes.logits).sum(1)
        return own + torch.where(self.rest == 0, 0.0, self.rest * changes.rest)

    def __sub__(self, other: "Weighed") -> "Weighed":
        """The difference of two scalars."""
        return Weighed(
            self.value - other.value, self.slots - other.slots, self.rest - other.rest
        )

    def where(
        self, mask: Bool[Tensor, " points"], other: "Weighed | None"
    ) -> "Weighed":
        """This one where the mask says so, else another, or zero."""
        if other is None:
            other = Weighed(*(torch.zeros_like(t) for t in self._parts))
        return Weighed(
            torch.where(mask, self.value, other.value),
            torch.where(mask[:, None], self.slots, other.slots),
            torch.where(mask, self.rest, other.rest),
        )

    @property
    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """All three."""
        return self.value, self.slots, self.rest


def weigh_level(
    read: TokenLogits, chosen: Bool[Tensor, "points slots"], unit: Unit
) -> Weighed:
    """The level of the chosen slots.

    Args:
        read: What a streamed pass left.
        chosen: The slots that make up each point's target.
        unit: Unit of the level.
    """
    own = _shares(read.logits.masked_fill(~chosen, -torch.inf))
    if unit == "logit":
        return Weighed(inside(read, chosen), own, torch.zeros_like(read.rest))
    gap = margin(read, chosen)
    factor = level_slope(gap, torch.ones_like(gap), unit)
    others = read.logits.masked_fill(chosen, -torch.inf)
    outside = _shares(torch.cat([others, read.rest[:, None]], 1))
    slots = factor[:, None] * (own - outside[:, :-1])
    return Weighed(level(gap, unit), slots, -factor * outside[:, -1])


def weigh_normaliser(read: TokenLogits) -> Weighed:
    """The log-sum-exp of all logits."""
    shares = _shares(torch.cat([read.logits, read.rest[:, None]], 1))
    return Weighed(read.log_normaliser, shares[:, :-1], shares[:, -1])


def _shares(logits: Float[Tensor, "points entries"]) -> Float[Tensor, "points entries"]:
    """Softmax of a row; zeros where there is nothing to share."""
    nothing = (logits == -torch.inf).all(1, keepdim=True)
    return torch.where(nothing, 0.0, logits.softmax(1))
