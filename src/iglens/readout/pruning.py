"""States whose level is certified to be below a tolerance are finished early.

A part of a sum of exponentials is a lower bound of it, so with any tokens `V` besides
the wanted ones `S`

    p(S) = sum_S exp(z) / sum_all exp(z)  <=  sum_S exp(z) / (sum_S + sum_V) exp(z).

Which tokens dominate is learned from a few states that are read in full. A product with
those alone, thin against the vocabulary, names the strongest rivals of every state; the
bound is then made of the rivals' float64 logits at their least and the wanted ones' at
their greatest. What that proves to be below the tolerance takes no part in the pass
over the vocabulary. Everything learned is forgotten with the call.
"""

import math
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..errors import ArgumentError
from .abstract import AbstractReadout
from .linear import LinearProjection, LinearReadout
from .observers import Top
from .streamed import MEMORY_BUDGET, TokenLogits, block_width, read, stream

TOLERANCE = 2.0**-24
"""Absolute tolerance on a probability: half the spacing of float32 below 1."""

TOLERANCES = 2.0**-10
"""What a tolerance must stay below: more would hide what a map shows."""

RIVALS = 4
"""Tokens a certificate is made of: with one, a fortieth of what it could prove is
missed on real text, with four a four-hundredth."""

SAMPLE, STRONGEST = 32, 8
"""States that are read in full to learn from, and how many tokens each one names."""

WORTHWHILE = 512
"""Fewer states than this are read as they are: learning costs as much as it saves."""

ROUNDING = 16 * torch.finfo(torch.float32).eps
"""What a term of a logit may be off by, of its size: a dozen float32 operations, since
many norms compute in float32 whatever they are given."""


def check_tolerance(tolerance: float) -> float:
    """The tolerance, if it is one.

    Raises:
        ArgumentError: If it is negative, not a number, or too large.
    """
    if not 0 <= tolerance < TOLERANCES:  # NaN is not either
        raise ArgumentError(
            f"`tolerance` is {tolerance}; it needs a probability from 0 (nothing is "
            f"pruned) to below {TOLERANCES:.1g}, such as 2**-24."
        )
    return float(tolerance)


class Pruner:
    """Reads states after one another, and leaves out what is certified to be small."""

    def __init__(
        self,
        readout: AbstractReadout,
        tolerance: float,
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        """Start with nothing learned.

        Args:
            readout: What to read with. Heads that are called give whole rows, of which
                nothing can be left out.
            tolerance: Probability below which states may be left out; 0 for none.
            memory_budget: Bytes for blocks of logits.
        """
        self._readout, self._memory_budget = readout, memory_budget
        self._below = tolerance
        self._strong: Tensor | None = None

    @torch.no_grad()
    def read(
        self,
        states: Float[Tensor, "points d_model"],
        tokens: Int[Tensor, "points slots"],
        prunable: Bool[Tensor, " points"],
    ) -> tuple[TokenLogits, Bool[Tensor, " points"]]:
        """What `iglens.readout.read` leaves, but for the states that are pruned.

        Of those, the logits of the wanted tokens are the greatest they can be, `rest`
        is a lower bound, and `rest_max` is infinite: a level made of them is an upper
        bound of the true one, whichever of the wanted tokens it is of, and below the
        tolerance; and no wanted token is the most probable, since what has less than a
        thousandth beside four rivals has one of them above it. A state is pruned only
        if all its wanted tokens together are that improbable. NaN is never pruned.

        Args:
            states: Residual states, before the final norm, as many as fit at once.
            tokens: Distinct token ids per point; -1 marks an unused slot.
            prunable: States that may be pruned.

        Returns:
            What was read, and which states were pruned.
        """
        readout, budget = self._readout, self._memory_budget
        enough = int(prunable.sum()) >= WORTHWHILE and self._below > 0
        if enough and isinstance(readout, LinearReadout):
            found = self._without(readout, states, tokens, prunable)
            if found is not None:
                return found
        plain = read(readout, states, tokens, memory_budget=budget)
        return plain, torch.zeros_like(prunable)

    def _without(
        self,
        readout: LinearReadout,
        states: Float[Tensor, "points d_model"],
        tokens: Int[Tensor, "points slots"],
        prunable: Bool[Tensor, " points"],
    ) -> tuple[TokenLogits, Bool[Tensor, " points"]] | None:
        """What was read, and what was pruned; None if weights are no numbers."""
        points = prunable.nonzero().flatten()
        pieces: list[tuple[Tensor, TokenLogits]] = []
        if self._strong is None:
            points, sample = _apart(points)
            pieces.append((sample, self._learn(states[sample], tokens[sample])))
        projection = readout.project(states)
        chosen, certified = self._certified(readout, projection, states, tokens, points)
        if len(chosen) == len(states):  # one is read, to see what weights there are
            chosen, certified = chosen[1:], certified.at(chosen[1:])
        pruned = torch.zeros_like(prunable).index_fill(0, chosen, value=True)
        done = torch.cat([chosen, *(at for at, _ in pieces)])
        others = _besides(done, len(states))
        # blocks as wide as without pruning: what is read gives the same numbers
        width = block_width(readout, len(states), self._memory_budget)
        pieces.append((others, stream(projection.take(others), tokens[others], width)))
        if any(_spoiled(piece, states[at]) for at, piece in pieces):
            return None
        pieces.append((chosen, certified))
        order = torch.cat([at for at, _ in pieces]).argsort()
        return TokenLogits.joined([piece for _, piece in pieces]).at(order), pruned

    def _learn(
        self,
        states: Float[Tensor, "some d_model"],
        tokens: Int[Tensor, "some slots"],
    ) -> TokenLogits:
        """Read some states in full, and remember which tokens dominate there."""
        top = Top(len(states), STRONGEST, tokens.device)
        found = read(
            self._readout,
            states,
            tokens,
            observers=[top],
            memory_budget=self._memory_budget,
        )
        self._strong = top.ids.unique()
        return found

    def _certified(
        self,
        readout: LinearReadout,
        projection: LinearProjection,
        states: Float[Tensor, "points d_model"],
        tokens: Int[Tensor, "points slots"],
        points: Int[Tensor, " some"],
    ) -> tuple[Int[Tensor, " pruned"], TokenLogits]:
        """Which of some points are below the tolerance, and what proves it."""
        points, rivals = self._screened(projection, tokens, points)
        exact = replace(readout, precision=torch.float64).project(states[points])
        _, wanted = exact.bounds(tokens[points], ROUNDING)
        least, _ = exact.bounds(rivals, ROUNDING)
        rest = least.logsumexp(1)
        proved = wanted.logsumexp(1) - rest < math.log(self._below)
        found = TokenLogits(wanted, rest, torch.full_like(rest, torch.inf))
        return points[proved], found.at(proved.nonzero().flatten())

    def _screened(
        self,
        projection: LinearProjection,
        tokens: Int[Tensor, "points slots"],
        points: Int[Tensor, " some"],
    ) -> tuple[Int[Tensor, " fewer"], Int[Tensor, "fewer rivals"]]:
        """The points that seem to be small enough, and their strongest rivals."""
        assert self._strong is not None  # learned before
        part, wanted = projection.take(points), tokens[points]
        logits = part.columns(self._strong)
        for slot in range(wanted.shape[1]):
            logits.masked_fill_(wanted[:, slot, None] == self._strong, -torch.inf)
        margin = part.at(wanted).logsumexp(1) - logits.logsumexp(1).double()
        promising = (margin < math.log(self._below)).nonzero().flatten()
        logits = logits[promising]
        values, best = logits.topk(min(RIVALS, logits.shape[1]), dim=1)
        rivals = self._strong[best].masked_fill(values == -torch.inf, -1)
        return points[promising], rivals


def _apart(
    points: Int[Tensor, " points"],
) -> tuple[Int[Tensor, " others"], Int[Tensor, " sample"]]:
    """A sample of points, equally spaced, and the others."""
    places = torch.linspace(0, len(points) - 1, SAMPLE, device=points.device).long()
    return points[_besides(places, len(points))], points[places]


def _besides(some: Int[Tensor, " some"], count: int) -> Int[Tensor, " others"]:
    """All numbers below a count but these."""
    left = torch.ones(count, dtype=torch.bool, device=some.device)
    return left.index_fill(0, some, value=False).nonzero().flatten()


def _spoiled(found: TokenLogits, states: Float[Tensor, "points d_model"]) -> bool:
    """Whether finite states have logits that are none: weights are to blame then.

    A weight or bias that is NaN or infinite spoils every state alike, also those that
    did not get to see it.
    """
    odd = found.rest.isnan() | found.logits.isnan().any(1)
    return bool(odd.any()) and bool(states[odd].isfinite().all(1).any())
