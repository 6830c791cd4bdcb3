"""The readout that is called, not read: any function from states to logits.

For heads that are no plain matrix (quantised, adapted) and for the injected readout,
which is the model's own forward. Every projection holds whole rows of logits, so only
as many states are projected at once as fit the memory budget.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import forward_ad

from ..errors import ArgumentError
from .abstract import AbstractProjection, AbstractReadout, LogitBlock, dual_level

Tail = Callable[[Tensor], Tensor]
"""Logits of some states, in the dtype the tail computes in."""


@dataclass(frozen=True, eq=False)
class CalledReadout(AbstractReadout):
    """A readout through a callable that gives whole rows of logits.

    Attributes:
        tail: The callable, in the model's own dtype.
    """

    tail: Tail
    d_model: int
    vocab_size: int
    dtype: torch.dtype
    precision: torch.dtype
    postprocess: str = "unknown"
    kind: str = "injected"

    @torch.no_grad()
    def logits(
        self, states: Float[Tensor, "points d_model"]
    ) -> Float[Tensor, "points vocab"]:
        """What the tail gives."""
        return self.tail(states)

    @torch.no_grad()
    def project(
        self,
        states: Float[Tensor, "points d_model"],
        directions: Float[Tensor, "points d_model"] | None = None,
    ) -> "CalledProjection":
        """Call the tail once on all states."""
        if directions is None:
            return CalledProjection(self.tail(states).to(self.precision), None)
        try:
            with dual_level():
                dual = forward_ad.make_dual(states, directions.to(states.dtype))
                logits, change = forward_ad.unpack_dual(self.tail(dual))
        except (RuntimeError, NotImplementedError) as error:
            raise ArgumentError(
                "This readout has no derivative (its head is called, not read: "
                f"{error}). Use `estimator='observed'`, which needs none."
            ) from error
        if change is None:
            raise ArgumentError(
                "This readout's derivative is lost on the way through its head. Use "
                "`estimator='observed'`, which needs none."
            )
        return CalledProjection(logits.to(self.precision), change.to(self.precision))

    def with_precision(self, precision: torch.dtype) -> "CalledReadout":
        """The same readout; its logits are what they are, sums become finer."""
        return replace(self, precision=precision)

    def points_within(self, budget: int) -> int:
        """Whole rows of logits in two dtypes must fit."""
        return max(1, budget // (self.vocab_size * self.precision.itemsize * 2))


@dataclass(frozen=True, eq=False)
class CalledProjection(AbstractProjection):
    """Whole rows of logits."""

    values: Float[Tensor, "points vocab"]
    slopes: Float[Tensor, "points vocab"] | None

    def blocks(self, width: int) -> Iterator[LogitBlock]:
        """The logits as they are, block by block, in copies."""
        for start in range(0, self.values.shape[1], width):
            columns = slice(start, start + width)
            slope = None if self.slopes is None else self.slopes[:, columns]
            yield LogitBlock(start, self.values[:, columns].clone(), slope)

    def at(self, tokens: Int[Tensor, "points slots"]) -> Float[Tensor, "points slots"]:
        """Logits of single tokens, in float64."""
        picked = self.values.gather(1, tokens.clamp(min=0)).double()
        return picked.masked_fill(tokens < 0, -torch.inf)
