r"""Who gave to whom: the softmax's exchange along a straight segment, integrated.

Along `h(t) = h_0 + t (h_1 - h_0)` the probability of a target `y` changes by

    dp_y/dt = sum_v p_y p_v (dz_y/dt - dz_v/dt),

one term per other token. `F(v -> y)` is the integral of that term: what `y` took from
`v`, antisymmetric in the two. The integral is computed by a Gauss-Kronrod rule on
pieces of the segment, each halved until the rule agrees with the coarser one inside it
and gives the change of every token between the piece's ends, which is known. What all
pieces together still miss of that closes the flow.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..readout import AbstractReadout
from ..readout.whole import whole_rows
from .integral.quadrature import GAUSS, KRONROD, NODES

RULE = "gauss-kronrod(15, 7), halved where they differ"

MAX_NODES = 2048
"""Rows of logits per segment at most; then the integral is given up."""

SHARE = 1 / 8
"""Of the tolerance, what one piece may miss of a known change."""

_WEIGHTS = tuple(torch.cat([torch.zeros(2).double(), w]) for w in (KRONROD, GAUSS))
"""Weights of both rules behind the two ends of a piece, which are read as well."""


@dataclass(frozen=True, eq=False)
class Exchange:
    """What one target took from every token along one segment.

    Attributes:
        flow: `F(v -> target)`, negative where the target gave; 0 for itself.
        weight: Share of every other token in what is closed evenly.
        change: Change of the target's probability, to which the flow adds up.
        residual: Largest part of any token's change that the rule missed, before it
            was closed.
        disagreement: Largest difference of the two rules in any flow, summed over the
            pieces.
        nodes: Rows of logits that were read.
        certified: Whether both are within the tolerance.
    """

    flow: Float[Tensor, " vocab"]
    weight: Float[Tensor, " vocab"]
    change: float
    residual: float
    disagreement: float
    nodes: int
    certified: bool

    def closed_on(self, change: float) -> Float[Tensor, " vocab"]:
        """The flow, adding up to a change that was read otherwise.

        The difference is rounding; every other token takes part by its probability.
        """
        return self.flow + self.weight * (change - self.flow.sum())


@torch.no_grad()
def exchange(
    readout: AbstractReadout,
    start: Float[Tensor, " d_model"],
    end: Float[Tensor, " d_model"],
    target: Bool[Tensor, " vocab"],
    *,
    tolerance: float,
    memory_budget: int,
) -> Exchange:
    """Integrate the exchange along one segment.

    Args:
        readout: What to read with.
        start: State the segment starts at.
        end: State it ends at.
        target: The target's tokens; what they trade with each other is left out.
        tolerance: What residual and disagreement may be.
        memory_budget: Bytes for rows of logits.
    """
    line = _Line(readout, start.double(), (end - start).double(), target, memory_budget)
    found = line.integrate(tolerance)
    missed = found.after - found.before - found.net
    residual = float(missed.abs().max())
    share = (found.before + found.after) / 2
    weight = share.masked_fill(target, 0.0)
    return Exchange(
        _closed(found.flow, missed, share, target),
        weight / weight.sum().clamp(min=1e-300),
        float((found.after - found.before)[target].sum()),
        residual,
        found.disagreement,
        found.nodes,
        residual <= tolerance and found.disagreement <= tolerance,
    )


@dataclass(frozen=True, eq=False)
class _Sums:
    """Integrals over a piece, or over neighbouring ones.

    Attributes:
        before: Probabilities where it starts.
        after: Probabilities where it ends.
        flow: Integral of what the target takes from every token.
        net: Integral of every token's change.
        disagreement: Largest difference of the two rules in `flow`.
        nodes: Rows of logits read.
    """

    before: Float[Tensor, " vocab"]
    after: Float[Tensor, " vocab"]
    flow: Float[Tensor, " vocab"]
    net: Float[Tensor, " vocab"]
    disagreement: float
    nodes: int

    def then(self, other: "_Sums") -> "_Sums":
        """This piece and the next as one."""
        return _Sums(
            self.before,
            other.after,
            self.flow + other.flow,
            self.net + other.net,
            self.disagreement + other.disagreement,
            self.nodes + other.nodes,
        )

    def good(self, tolerance: float, width: float) -> bool:
        """Whether the rules agree, and miss little of what is known.

        Rules that both step over what moves agree on nothing; the change of every
        token between the ends tells. NaN is no reason to go on.
        """
        missed = float((self.after - self.before - self.net).abs().max())
        bad = missed > tolerance * SHARE or self.disagreement > tolerance * width
        return not bad


@dataclass(frozen=True, eq=False)
class _Line:
    """A segment, and whose exchange along it is asked for."""

    readout: AbstractReadout
    start: Float[Tensor, " d_model"]
    step: Float[Tensor, " d_model"]
    target: Bool[Tensor, " vocab"]
    memory_budget: int

    def integrate(self, tolerance: float) -> _Sums:
        """The whole segment, in pieces that are halved until each is good."""
        waiting, done, nodes = [(0.0, 1.0)], None, 0
        while waiting:
            start, width = waiting.pop()
            piece = self.piece(start, width)
            nodes += piece.nodes
            if not piece.good(tolerance, width) and nodes < MAX_NODES:
                waiting += [(start + width / 2, width / 2), (start, width / 2)]
                continue
            done = piece if done is None else done.then(piece)
        assert done is not None  # at least one piece
        return replace(done, nodes=nodes)

    def piece(self, start: float, width: float) -> _Sums:
        """One piece: its two ends, and the fifteen nodes between them."""
        places = torch.cat([torch.tensor([0.0, 1.0]).double(), NODES])
        places = (start + width * places).to(self.start.device)
        states = self.start + places[:, None] * self.step
        turns = whole_rows(
            self.readout,
            states.to(self.readout.precision),
            self.step.expand_as(states).to(self.readout.precision),
            memory_budget=self.memory_budget,
        )
        flow = coarse = net = torch.zeros((), dtype=torch.float64)
        ends: list[Tensor] = []
        for part, logits, slopes in turns:
            assert slopes is not None  # asked for
            p, flows, changes = self._rates(logits, slopes)
            ends += p[: max(0, 2 - part.start)].clone()
            fine, rough = (weights[part].to(p) * width for weights in _WEIGHTS)
            flow = flow + fine @ flows
            coarse = coarse + rough @ flows
            net = net + fine @ changes
        apart = float((flow - coarse).abs().max())
        return _Sums(ends[0], ends[1], flow, net, apart, len(places))

    def _rates(
        self, logits: Float[Tensor, "nodes vocab"], slopes: Float[Tensor, "nodes vocab"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Probabilities, what the target takes from each token, and what each gains."""
        p = logits.softmax(-1)
        moved = torch.where(p > 0, p * slopes, 0.0)  # p dz
        inside = p[:, self.target].sum(1, keepdim=True)
        pushed = moved[:, self.target].sum(1, keepdim=True)
        flows = p * pushed - inside * moved
        return p, flows, moved - p * moved.sum(1, keepdim=True)


def _closed(
    flow: Float[Tensor, " vocab"],
    missed: Float[Tensor, " vocab"],
    weight: Float[Tensor, " vocab"],
    target: Bool[Tensor, " vocab"],
) -> Float[Tensor, " vocab"]:
    """The flow with what every token's change still lacks.

    `w_v r_y - w_y r_v` is antisymmetric, linear in the residuals `r`, and adds up to
    `r_y` over `v`, since weights sum to 1 and residuals to 0.
    """
    closed = flow + weight * missed[target].sum() - weight[target].sum() * missed
    closed[target] = 0.0
    return closed
