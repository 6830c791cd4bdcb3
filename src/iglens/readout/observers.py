"""What can be watched while the logits go by: rank, top tokens, moments, slope.

They need every logit of a row, so they cost a few more passes over each block.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .abstract import LogitBlock


class Rank:
    """Place of a token among all: 1 plus the number of tokens placed before it.

    A token is placed before another if its logit is larger, or equal with a lower id.
    The wanted tokens' own logits are used throughout, so that two of them are placed
    in one order whichever is asked about.
    """

    def __init__(self, tokens: Int[Tensor, "points slots"]) -> None:
        """Take the tokens to be placed."""
        self._tokens = tokens
        self.rank = torch.ones_like(tokens)

    def watch(self, block: LogitBlock, wanted: Float[Tensor, "points slots"]) -> None:
        """Count the tokens of one block that come first."""
        logits, width = block.logits.clone(), block.logits.shape[1]
        own = wanted.to(logits.dtype)
        columns = self._tokens - block.start
        points, slots = ((columns >= 0) & (columns < width)).nonzero(as_tuple=True)
        logits[points, columns[points, slots]] = own[points, slots]
        ids = torch.arange(block.start, block.start + width, device=self.rank.device)
        for slot in range(self._tokens.shape[1]):
            token, logit = self._tokens[:, slot, None], own[:, slot, None]
            before = (logits > logit) | ((logits == logit) & (ids < token))
            self.rank[:, slot] += before.sum(1)


class Top:
    """The most probable tokens of every point; of equal ones, those of lowest id."""

    def __init__(self, points: int, k: int, device: torch.device) -> None:
        """Start with no token seen."""
        self._k = k
        self.logits = torch.zeros((points, 0), dtype=torch.float64, device=device)
        self.ids = torch.zeros((points, 0), dtype=torch.int64, device=device)

    def watch(self, block: LogitBlock, wanted: Float[Tensor, "points slots"]) -> None:
        """Merge the best of one block into the best so far."""
        columns = _largest(block.logits, self._k)
        found = block.logits.gather(1, columns).double()
        logits = torch.cat([self.logits, found], 1)
        ids = torch.cat([self.ids, columns + block.start], 1)
        order = logits.argsort(dim=1, descending=True, stable=True)[:, : self._k]
        self.logits, self.ids = logits.gather(1, order), ids.gather(1, order)


def _largest(logits: Float[Tensor, "points block"], k: int) -> Int[Tensor, "points k"]:
    """Columns of the largest logits, ascending; of equals, the first."""
    values, columns = logits.topk(min(k, logits.shape[1]), dim=1)
    # `topk` takes any of equals: where some are left out, a stable sort decides
    crowded = (logits >= values[:, -1:]).sum(1) > values.shape[1]
    if bool(crowded.any()):
        order = logits[crowded].argsort(dim=1, descending=True, stable=True)
        columns[crowded] = order[:, : values.shape[1]]
    return columns.sort(dim=1).values


class Divergence:
    """`sum_v p_final(v) (z_final(v) - z_point(v))`, the logits' share of the KL.

    `KL(final || point)` is this minus the difference of the log-normalisers. Points
    come as whole paths, point-major, and the last of each path is its final state.
    """

    def __init__(self, paths: int) -> None:
        """Take the number of paths the points belong to."""
        self._paths = paths
        self._max: Tensor | None = None
        self._weight = torch.zeros(())
        self._gap = torch.zeros(())

    def watch(self, block: LogitBlock, wanted: Float[Tensor, "points slots"]) -> None:
        """Add one block to the running weighted mean of the logit differences."""
        logits = block.logits.view(-1, self._paths, block.logits.shape[1])
        final = logits[-1]
        largest = final.amax(1)
        if self._max is not None:
            largest = torch.maximum(largest, self._max)
        impossible = final == -torch.inf
        shift = largest.masked_fill(largest == -torch.inf, 0.0)
        weight = (final - shift[:, None]).clamp_(min=-80).exp_()
        gap = (final - logits).masked_fill(impossible, 0.0) * weight
        scale = 0.0 if self._max is None else (self._max - shift).double().exp()
        self._gap = self._gap * scale + gap.sum(2).double()
        self._weight = self._weight * scale + weight.sum(1).double()
        self._max = largest

    @property
    def mean_gap(self) -> Float[Tensor, " points"]:
        """Expected logit difference under the final distribution."""
        return (self._gap / self._weight).flatten()


class Entropy:
    """Entropy of every point's distribution, in nats."""

    def __init__(self, points: int, device: torch.device) -> None:
        """Start with no token seen."""
        self._max = torch.full((points,), -torch.inf, device=device).double()
        self._weight = torch.zeros_like(self._max)
        self._moment = torch.zeros_like(self._max)

    def watch(self, block: LogitBlock, wanted: Float[Tensor, "points slots"]) -> None:
        """Add one block to the running weights and their first moment."""
        largest = torch.maximum(self._max, block.logits.amax(1).double())
        shift = largest.masked_fill(largest == -torch.inf, 0.0)
        depth = block.logits - shift.to(block.logits.dtype)[:, None]
        weight = depth.clamp_(min=-80).exp()
        # what was counted from the old maximum lies that much deeper under the new
        moved = (self._max - shift).masked_fill(self._max == -torch.inf, 0.0)
        self._moment = (self._moment + moved * self._weight) * moved.exp()
        self._weight = self._weight * moved.exp()
        self._moment += (weight * depth).sum(1, dtype=torch.float64)
        self._weight += weight.sum(1, dtype=torch.float64)
        self._max = largest

    @property
    def entropy(self) -> Float[Tensor, " points"]:
        """`log sum e^z - sum p z`, never below 0."""
        return (self._weight.log() - self._moment / self._weight).clamp(min=0.0)


class Moments:
    """Mean and standard deviation of every point's logits, masked ones left out.

    A logit of minus infinity takes no part; NaN and plus infinity spoil their point.
    """

    def __init__(self, points: int, device: torch.device) -> None:
        """Start with no token seen."""
        self._count = torch.zeros(points, dtype=torch.float64, device=device)
        self._sum = torch.zeros_like(self._count)
        self._squares = torch.zeros_like(self._count)

    def watch(self, block: LogitBlock, wanted: Float[Tensor, "points slots"]) -> None:
        """Add one block to the running sums."""
        masked = block.logits == -torch.inf
        logits = block.logits.double().masked_fill(masked, 0.0)
        self._count += (~masked).sum(1)
        self._sum += logits.sum(1)
        self._squares += logits.square().sum(1)

    @property
    def mean(self) -> Float[Tensor, " points"]:
        """Mean over the tokens that can be predicted."""
        return self._sum / self._count

    @property
    def spread(self) -> Float[Tensor, " points"]:
        """Standard deviation over the same tokens; 0 where only rounding is left."""
        square = self._squares / self._count
        variance = square - self.mean.square()
        return variance.masked_fill(variance <= 1e-13 * square, 0.0).sqrt()


class Slope:
    """`sum_v p(v) dz(v)` along each point's direction, the target left out.

    The derivative of the log-normaliser of all other tokens.
    """

    def __init__(self, tokens: Int[Tensor, "points slots"]) -> None:
        """Take the tokens that stand apart."""
        self._tokens = tokens
        points, slots = tokens.shape
        self._max = torch.full((points,), -torch.inf, device=tokens.device).double()
        self._weight = torch.zeros_like(self._max)
        self._slope = torch.zeros_like(self._max)
        self.own = torch.zeros((points, slots), device=tokens.device).double()

    def watch(self, block: LogitBlock, wanted: Float[Tensor, "points slots"]) -> None:
        """Add one block, and pick up the derivatives of the wanted tokens' logits."""
        assert block.derivatives is not None  # asked for with directions
        columns = self._tokens - block.start
        inside = (columns >= 0) & (columns < block.logits.shape[1])
        points, slots = inside.nonzero(as_tuple=True)
        picked = columns[points, slots]
        self.own[points, slots] = block.derivatives[points, picked].double()
        logits = block.logits.clone()
        logits[points, picked] = -torch.inf
        largest = torch.maximum(self._max, logits.amax(1).double())
        shift = largest.masked_fill(largest == -torch.inf, 0.0)
        weight = (logits - shift[:, None].to(logits.dtype)).clamp_(min=-80).exp_()
        scale = (self._max - shift).exp()
        self._weight = self._weight * scale + weight.sum(1).double()
        change = (weight * block.derivatives).sum(1).double()
        self._slope = self._slope * scale + change
        self._max = largest

    @property
    def rest(self) -> Float[Tensor, " points"]:
        """Derivative of the log-sum-exp of all tokens but the wanted."""
        return self._slope / self._weight
