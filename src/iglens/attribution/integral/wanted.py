"""Which scalar of the logits is integrated along each segment."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ...readout import TokenLogits
from ...readout.weights import Weighed, weigh_level, weigh_normaliser
from ...records import Unit


@dataclass(frozen=True, eq=False)
class Wanted:
    """A target's level, for every segment or point.

    Attributes:
        tokens: Distinct token ids; -1 marks an unused slot.
        chosen: The slots that make up the target.
        against: The slots it is contrasted with; none where it is not.
        unit: Unit of the level.
    """

    tokens: Int[Tensor, "segments slots"]
    chosen: Bool[Tensor, "segments slots"]
    against: Bool[Tensor, "segments slots"]
    unit: Unit

    def at(self, segments: Int[Tensor, " picked"]) -> "Wanted":
        """The same for some of the segments, in the given order."""
        return Wanted(
            self.tokens[segments],
            self.chosen[segments],
            self.against[segments],
            self.unit,
        )

    @property
    def apart(self) -> Int[Tensor, "segments slots"]:
        """The token ids, unused slots taking one that is used: to be left out."""
        used = self.tokens.amax(1, keepdim=True)
        return torch.where(self.tokens < 0, used, self.tokens)

    def weigh(self, read: TokenLogits) -> tuple[Weighed, Weighed, Weighed]:
        """Level of the target, of what it is contrasted with, and the normaliser.

        The first minus the second is what is integrated. All three have known values
        at the ends of a segment, and a distribution cannot change between two nodes of
        a rule without one of them changing too: so they tell what a rule has missed
        even where the difference does not, because it happens to come back.
        """
        paired = self.against.any(1)
        first = weigh_level(read, self.chosen, self.unit)
        if not bool(paired.any()):
            nothing = first.where(paired, None)
            return first, nothing, weigh_normaliser(read)
        second = weigh_level(read, self.against, self.unit)
        if self.unit == "log_probability":  # the normaliser cancels
            first = weigh_level(read, self.chosen, "logit").where(paired, first)
            second = weigh_level(read, self.against, "logit")
        return first, second.where(paired, None), weigh_normaliser(read)
