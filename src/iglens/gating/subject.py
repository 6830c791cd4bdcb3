"""What is audited: one target at the end of one text, on a gated model."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import NonFiniteError
from ..model.decoder import Decoder
from ..model.intervene import At, Intervention
from ..records import Target, Unit
from .level import level_of

MOST_TOKENS = 2048
"""Tokens that share a batch."""

Done = Callable[[int], None]
"""Told how many runs more are done."""


class AbstractGated(ABC):
    """A level as a function of gates.

    Attributes:
        n_columns: Number of gates.
    """

    n_columns: int

    @abstractmethod
    def levels(self, gates: Float[Tensor, "runs columns"]) -> Float[Tensor, " runs"]:
        """Level under every row of gates, in float64."""

    @abstractmethod
    def slopes(self, places: Float[Tensor, " runs"]) -> Float[Tensor, "runs columns"]:
        """Derivatives by every gate where all of them are open this far, in float64."""


def _nobody(more: int) -> None:
    """Told of runs that nobody waits for."""


@dataclass(frozen=True, eq=False)
class Gated(AbstractGated):
    """The level of one target in the model's own output, as a function of gates.

    Attributes:
        gated: The model.
        ids: The text, up to the token that predicts.
        target: What is read there.
        unit: Unit of its level.
        at_once: Runs that may share a batch.
        at: Where gates act.
        means: What closed gates put in place of updates; None for nothing.
        done: Told of every batch that has run.
        came_back: Told of every batch whose derivatives have arrived at its gates.
    """

    gated: Intervention
    ids: Int[Tensor, " text"]
    target: Target
    unit: Unit
    at_once: int
    at: At = "all"
    means: Float[Tensor, "columns d_model"] | None = None
    done: Done = _nobody
    came_back: Done = _nobody

    @property
    def n_columns(self) -> int:  # type: ignore[override]
        """Number of gates."""
        return len(self.gated.columns)

    def levels(self, gates: Float[Tensor, "runs columns"]) -> Float[Tensor, " runs"]:
        """Level under every row of gates, in float64.

        Raises:
            NonFiniteError: If one is not finite.
        """
        found = []
        for some in gates.split(self.at_once):
            logits = self.gated.logits(self.ids, some, at=self.at, means=self.means)
            found.append(level_of(logits, self.target, self.unit))
            self.done(len(some))
        levels = torch.cat(found)
        if not bool(levels.isfinite().all()):
            raise NonFiniteError(
                f"The level of {self.target.name!r} is not finite in a run with gates. "
                "Choose another `unit`, or load the model in a wider `dtype`."
            )
        return levels

    def slopes(self, places: Float[Tensor, " runs"]) -> Float[Tensor, "runs columns"]:
        """Derivatives by every gate where all of them are open this far, in float64."""
        found = []
        for some in places.split(self.at_once):
            gates = some[:, None].repeat(1, self.n_columns).requires_grad_()
            gates.register_hook(lambda arrived: self.came_back(len(arrived)))
            logits = self.gated.logits(
                self.ids, gates, at=self.at, means=self.means, gradients=True
            )
            total = level_of(logits, self.target, self.unit).sum()
            found += torch.autograd.grad(total, gates)
            self.done(len(some))
        return torch.cat(found).double()


def at_once(decoder: Decoder, n_tokens: int) -> int:
    """Runs of a text of this length that may share a batch."""
    return max(1, MOST_TOKENS // n_tokens) if decoder.batch_safe else 1
