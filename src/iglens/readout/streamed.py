"""Reading states in one streamed pass over the vocabulary.

The target's logit is kept apart from the normaliser of everything else. Then
`log p = -softplus(rest - logit)` and `log-odds = logit - rest` are exact to the last
digits however near to 0 or 1 the probability is, and the target's logit is one number,
not two that differ by the rounding of two matrix products.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import ArgumentError
from .abstract import AbstractProjection, AbstractReadout, LogitBlock
from .fused import fused
from .linear import LinearProjection

MEMORY_BUDGET = 64 * 2**20
"""Bytes that reading may hold at once, besides the states themselves."""

BLOCK_BYTES = 2**20 * 4
"""Size of one block of logits: small enough that the passes over it stay in cache."""

FUSED_UP_TO = 2048
"""Columns that a softmax adds up without losing digits."""


@runtime_checkable
class Observer(Protocol):
    """Something that watches the logits go by."""

    def watch(self, block: LogitBlock, wanted: Float[Tensor, "points slots"]) -> None:
        """See one block, and the wanted tokens' logits; leave both as they are."""


@dataclass(frozen=True, eq=False)
class TokenLogits:
    """What a streamed pass leaves: a few logits, and the normaliser of the others.

    Attributes:
        logits: Logits of the wanted tokens, minus infinity in unused slots.
        rest: Log-sum-exp of the logits of all other tokens.
        rest_max: The largest of those.
    """

    logits: Float[Tensor, "points slots"]
    rest: Float[Tensor, " points"]
    rest_max: Float[Tensor, " points"]

    @property
    def log_normaliser(self) -> Float[Tensor, " points"]:
        """Log-sum-exp of all logits, the wanted tokens' among them."""
        return torch.logaddexp(self.rest, self.logits.logsumexp(1))

    @property
    def log_probabilities(self) -> Float[Tensor, "points slots"]:
        """Log-probability of every wanted token, in nats.

        `iglens.readout.target.level` keeps more digits next to probability 1.
        """
        return self.logits - self.log_normaliser[:, None]

    @classmethod
    def joined(cls, pieces: "Sequence[TokenLogits]") -> "TokenLogits":
        """Several readings as one."""
        return cls(
            torch.cat([piece.logits for piece in pieces]),
            torch.cat([piece.rest for piece in pieces]),
            torch.cat([piece.rest_max for piece in pieces]),
        )

    def at(self, points: Int[Tensor, " picked"]) -> "TokenLogits":
        """The same for some of the points, in the given order."""
        return TokenLogits(
            self.logits[points], self.rest[points], self.rest_max[points]
        )


@torch.no_grad()
def read(
    readout: AbstractReadout,
    states: Float[Tensor, "points d_model"],
    tokens: Int[Tensor, "points slots"],
    *,
    directions: Float[Tensor, "points d_model"] | None = None,
    observers: Sequence[Observer] = (),
    memory_budget: int = MEMORY_BUDGET,
) -> TokenLogits:
    """Logits of some tokens, and the normaliser of all others.

    Equals `readout.logits(states)` in the readout's precision, the wanted tokens
    gathered and the others put through `logsumexp`, without holding `points x vocab`.

    Args:
        readout: What to read with.
        states: Residual states, before the final norm. More than can be normed at
            once (`readout.points_within`) are read in turns, unless observed.
        tokens: Distinct token ids per point; -1 marks an unused slot.
        directions: If given, observers also see the logits' derivatives along these.
        observers: What else is to see every block, in order.
        memory_budget: Bytes for blocks of logits. Changes memory and speed, not the
            result beyond rounding.

    Returns:
        Float64 values, NaN where a logit is NaN or plus infinity.

    Raises:
        ArgumentError: If a token is not in this vocabulary.
    """
    _check_tokens(tokens, readout.vocab_size)
    at_once = readout.points_within(memory_budget)
    if len(states) > at_once and not observers:
        turns = zip(states.split(at_once), tokens.split(at_once), strict=True)
        pieces = [read(readout, s, t, memory_budget=memory_budget) for s, t in turns]
        return TokenLogits.joined(pieces)
    projection = readout.project(states, directions)
    width = block_width(readout, len(states), memory_budget)
    return stream(projection, tokens, width, observers)


def stream(
    projection: AbstractProjection,
    tokens: Int[Tensor, "points slots"],
    width: int,
    observers: Sequence[Observer] = (),
) -> TokenLogits:
    """What `read` leaves, of states that are projected already, in blocks so wide."""
    wanted = projection.at(tokens)

    def plain(
        some: AbstractProjection, tokens: Int[Tensor, "some slots"]
    ) -> tuple[Float[Tensor, " some"], Float[Tensor, " some"]]:
        """The pass block by block."""
        normaliser = Normaliser(tokens)
        for block in some.blocks(width):
            for observer in observers:
                observer.watch(block, wanted)
            normaliser.consume(block.logits, block.start)
        return normaliser.rest, normaliser.rest_max

    found = None
    if isinstance(projection, LinearProjection) and not observers:
        found = fused(projection, tokens, plain)
    rest, rest_max = found or plain(projection, tokens)
    return TokenLogits(_no_infinity(wanted), rest, rest_max)


@torch.no_grad()
def summarise(
    logits: Float[Tensor, "points vocab"], tokens: Int[Tensor, "points slots"]
) -> TokenLogits:
    """What `read` leaves, from whole rows of logits, in float32 at least."""
    _check_tokens(tokens, logits.shape[1])
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32), copy=True)
    picked = precise.gather(1, tokens.clamp(min=0)).double()
    normaliser = Normaliser(tokens)
    normaliser.consume(precise, 0)
    return TokenLogits(
        _no_infinity(picked.masked_fill(tokens < 0, -torch.inf)),
        normaliser.rest,
        normaliser.rest_max,
    )


def _no_infinity(logits: Tensor) -> Tensor:
    """NaN for plus infinity, as in a softmax: infinity over infinity is no number."""
    return logits.masked_fill(logits == torch.inf, torch.nan)


def block_width(readout: AbstractReadout, points: int, memory_budget: int) -> int:
    """Columns per block: cache-sized, and within a quarter of the budget.

    That goes for the logits, and for the block's weights where they are converted.
    """
    allowed, size = memory_budget // 4, readout.precision.itemsize
    width = min(BLOCK_BYTES, allowed) // (points * size)
    if readout.dtype != readout.precision:
        width = min(width, allowed // (readout.d_model * size))
    return max(min(width, readout.vocab_size), min(64, readout.vocab_size))


class Normaliser:
    """Running log-sum-exp over the vocabulary, without the listed tokens."""

    def __init__(self, tokens: Int[Tensor, "points slots"]) -> None:
        """Start with no token seen."""
        self._tokens = tokens
        shape, device = tokens.shape[:1], tokens.device
        self.rest_max = torch.full(
            shape, -torch.inf, dtype=torch.float64, device=device
        )
        self._sum = torch.zeros(shape, dtype=torch.float64, device=device)

    def consume(self, logits: Float[Tensor, "points block"], start: int) -> None:
        """Add one block; its logits are overwritten.

        Their softmax has the reciprocal of their sum at the largest: one fused pass in
        place of a subtraction, an exponential and a sum. Logits are lifted to at most
        60 under the largest first: what lies deeper is added as e^-60, which changes a
        sum by less than 1e-20 and avoids denormal numbers, which are slow to compute
        where logits spread widely.
        """
        columns = self._tokens - start
        inside = (columns >= 0) & (columns < logits.shape[1])
        points, slots = inside.nonzero(as_tuple=True)
        logits[points, columns[points, slots]] = -torch.inf
        highest = logits.amax(1)
        depth = 600.0 if logits.dtype == torch.float64 else 60.0
        torch.maximum(logits, (highest - depth)[:, None], out=logits)
        added = _sum(logits, highest).double()
        highest = highest.double()
        empty = highest == -torch.inf
        added = added.masked_fill(empty, 0.0)
        largest = torch.maximum(self.rest_max, highest)
        shift = largest.masked_fill(largest == -torch.inf, 0.0)
        before, here = (self.rest_max - shift).exp(), (highest - shift).exp()
        self._sum = self._sum * before + added * here
        self.rest_max = largest

    @property
    def rest(self) -> Float[Tensor, " points"]:
        """Log-sum-exp of what was consumed so far."""
        empty = self.rest_max == -torch.inf
        return (self.rest_max + self._sum.log()).masked_fill(empty, -torch.inf)


def _sum(
    logits: Float[Tensor, "points block"], highest: Float[Tensor, " points"]
) -> Float[Tensor, " points"]:
    """`sum e^(z - highest)` of every row; its logits are overwritten.

    A softmax adds thousands of terms one after the other, and loses digits over wide
    blocks, where `sum` adds in pairs.
    """
    if logits.shape[1] > FUSED_UP_TO:
        return logits.sub_(highest[:, None]).exp_().sum(1)
    return 1 / torch.softmax(logits, 1, out=logits).amax(1)


def _check_tokens(tokens: Int[Tensor, "points slots"], vocab_size: int) -> None:
    """Refuse ids that no logit belongs to."""
    if tokens.numel() and not bool(((tokens >= -1) & (tokens < vocab_size)).all()):
        raise ArgumentError(
            f"`tokens` must hold ids in [0, {vocab_size}), but spans "
            f"[{int(tokens.min())}, {int(tokens.max())}]. Was it made with another "
            "model's tokenizer?"
        )
