r"""Straight lines between states, and the scale of a norm along them.

On `h(t) = h + t D` the scale of a norm is a root of a parabola,

    r(t)^2 = q_0 + 2 t q_1 + t^2 q_2 + eps,

with `q_0, q_1, q_2` the means of `(C h)^2`, `(C h)(C D)` and `(C D)^2`, in float64.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...readout.scaled_norm import ScaledNorm

STEEP = 4.0
"""Factor by which the scale may change over a panel that is looked at."""

_SHORTEST = 2.0**-30


@dataclass(frozen=True, eq=False)
class Lines:
    """Straight lines from some states to others, seen by a norm.

    Attributes:
        starts: Where they start, float64.
        steps: Where they end, minus where they start.
        norm: The norm.
    """

    starts: Float[Tensor, "segments d_model"]
    steps: Float[Tensor, "segments d_model"]
    norm: ScaledNorm

    @cached_property
    def centred(self) -> Float[Tensor, "segments two d_model"]:
        """`C h` and `C D`."""
        return self.norm.centre(torch.stack([self.starts, self.steps], 1))

    @cached_property
    def _parabola(self) -> Float[Tensor, "three segments"]:
        """`q_0 + eps`, `q_1` and `q_2`; `1, 0, 0` where there is no scale."""
        start, step = self.centred.unbind(1)
        means = [(start * start), (start * step), (step * step)]
        found = torch.stack([product.mean(-1) for product in means])
        found[0] += self.norm.eps
        if self.norm.scaled:
            return found
        return torch.zeros_like(found).index_fill_(
            0, torch.zeros((), dtype=torch.long, device=found.device), 1.0
        )

    def scale(
        self, segment: Int[Tensor, " panels"], places: Float[Tensor, "panels nodes"]
    ) -> Float[Tensor, "panels nodes"]:
        """`r(t)`."""
        at, slope, bend = self._parabola[:, segment, None]
        return (at + places * (2 * slope + places * bend)).clamp(min=0).sqrt()

    def growth(
        self, segment: Int[Tensor, " panels"], places: Float[Tensor, "panels nodes"]
    ) -> Float[Tensor, "panels nodes"]:
        """`r r'`, half the derivative of `r(t)^2`."""
        _, slope, bend = self._parabola[:, segment, None]
        return slope + places * bend

    def cuts(self) -> list[list[float]]:
        """Where each line is cut so that `r` changes little over any piece."""
        return [_cuts(a, b, c, 0.0, 1.0) for a, b, c in self._parabola.T.tolist()]


def _cuts(
    at: float, slope: float, bend: float, left: float, right: float
) -> list[float]:
    """Places inside [left, right] at which a line is halved, and halved again."""

    def square(t: float) -> float:
        return max(at + t * (2 * slope + t * bend), 0.0)

    lowest = min(max(-slope / bend, left), right) if bend > 0 else left
    steep = max(square(left), square(right)) > STEEP**2 * square(lowest)
    if not steep or right - left <= _SHORTEST:
        return []
    middle = (left + right) / 2
    return [
        *_cuts(at, slope, bend, left, middle),
        middle,
        *_cuts(at, slope, bend, middle, right),
    ]
