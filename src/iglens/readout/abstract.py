"""What every readout can do.

Axis legend, used by every annotation in this package:

    rows        explained (position, target) pairs
    points      states to read; on a path the first is the baseline
    segments    steps between neighbouring points, one fewer than points
    slots       tokens whose logits are wanted apart, per point
    d_model     width of the residual stream
    vocab       size of the vocabulary
    block       neighbouring columns of the vocabulary
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import forward_ad


@dataclass(frozen=True)
class LogitBlock:
    """Logits of some neighbouring columns of the vocabulary.

    Attributes:
        start: Token id of the first column.
        logits: Post-processed logits. The buffer belongs to the receiver until the
            next block is asked for, and may be overwritten.
        derivatives: Change of the logits along each state's direction, if directions
            were given.
    """

    start: int
    logits: Float[Tensor, "points block"]
    derivatives: Float[Tensor, "points block"] | None = None


class AbstractProjection(ABC):
    """Some states, normed and ready to be multiplied with the unembedding."""

    @abstractmethod
    def blocks(self, width: int) -> Iterator[LogitBlock]:
        """The logits of every token, at most `width` columns at a time if possible."""

    @abstractmethod
    def at(self, tokens: Int[Tensor, "points slots"]) -> Float[Tensor, "points slots"]:
        """The logits of single tokens, in float64; ids below 0 give minus infinity."""


class AbstractReadout(ABC):
    """Logits of residual states, before the final norm.

    Attributes:
        kind: "explicit" or "injected"; see `iglens.records.ReadoutInfo`.
        d_model: Width of a state.
        vocab_size: Number of logits.
        dtype: The dtype the model computes in.
        precision: The dtype of levels, at least float32.
        postprocess: What happens to the logits after the head, in words.
    """

    kind: str
    d_model: int
    vocab_size: int
    dtype: torch.dtype
    precision: torch.dtype
    postprocess: str

    @abstractmethod
    def logits(
        self, states: Float[Tensor, "points d_model"]
    ) -> Float[Tensor, "points vocab"]:
        """What the model's tail gives, operation by operation, in its own dtype."""

    @abstractmethod
    def project(
        self,
        states: Float[Tensor, "points d_model"],
        directions: Float[Tensor, "points d_model"] | None = None,
    ) -> AbstractProjection:
        """Prepare states for reading in `precision`.

        Args:
            states: Residual states, before the final norm.
            directions: If given, derivatives of the logits along these are read too.
        """

    @abstractmethod
    def with_precision(self, precision: torch.dtype) -> "AbstractReadout":
        """The same readout at another precision of its levels."""

    def points_within(self, budget: int) -> int:
        """How many states may be projected at once in `budget` bytes."""
        return max(1, budget // (self.d_model * self.precision.itemsize * 4))


_ONE_LEVEL = threading.Lock()


@contextmanager
def dual_level() -> Iterator[None]:
    """Forward-mode derivatives: torch has one level for all threads together."""
    with _ONE_LEVEL, forward_ad.dual_level():
        yield


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The precision levels are read in when the model computes in `dtype`."""
    return torch.float64 if dtype == torch.float64 else torch.float32
