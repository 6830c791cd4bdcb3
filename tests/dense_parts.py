r"""Inside a segment: what each part of a step contributed to the change of a level.

A step `D = h_end - h` is a sum of parts. Along the straight line the part `u_c` has

    A_c = int_0^1 <grad f(h + t D), u_c> dt = <g, u_c>,

`g` being the gradient averaged over the segment: one vector serves any number of parts,
and parts of parts. `sum_c A_c` is `f(h_end) - f(h)` but for what the quadrature misses;
that is closed along the step, `g + rho D / |D|^2`, which is linear in the parts and so
keeps every level of a hierarchy additive. What was missed, and what two rules disagree
by on the parts, is the certificate.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from iglens.attribution.integral.averaged import AveragedGradient


@dataclass(frozen=True, eq=False)
class Certificate:
    """How far the shares of a segment can be trusted, in the level's unit.

    Attributes:
        residual: `|rho|`, what the integral missed of the level's change, before
            closure, in the integrator's own arithmetic.
        parts: The most that the two rules disagree by on any part.
        bound: The same for any part that is no longer than the longest given.
        ends: What the credit differs by from the change the integrator read: rounding.
        closed: The amount that closure spread over the parts of each segment.
        closed_part: The most that it gave to one part.
        capped: Whether reading stopped at the largest number of nodes.
    """

    residual: Float[Tensor, " segments"]
    parts: Float[Tensor, " segments"]
    bound: Float[Tensor, " segments"]
    ends: Float[Tensor, " segments"]
    closed: Float[Tensor, " segments"]
    closed_part: Float[Tensor, " segments"]
    capped: Bool[Tensor, " segments"]

    def within(self, tolerance: float) -> Bool[Tensor, " segments"]:
        """Whether residual and parts are certified to a tolerance; NaN is not."""
        return (self.residual <= tolerance) & (self.parts <= tolerance)


@dataclass(frozen=True, eq=False)
class Shares:
    """What the parts of some segments contributed.

    Attributes:
        credits: Each part's share.
        remainder: The share of what the parts lack of the step, or have too much.
            `credits.sum(1) + remainder` is the segment's credit.
        certificate: How far to trust them.
    """

    credits: Float[Tensor, "segments parts"]
    remainder: Float[Tensor, " segments"]
    certificate: Certificate


def shares(
    averaged: AveragedGradient,
    parts: Float[Tensor, "segments parts d_model"],
    credits: Float[Tensor, " segments"] | None = None,
) -> Shares:
    """Share the credit of each segment over the parts of its step.

    Args:
        averaged: The gradient along the segments.
        parts: `u_c`, which should add up to the step; a segment with fewer parts than
            others has zeros.
        credits: Each segment's credit, from the levels at its ends; the change that
            the integrator read if not given.

    Returns:
        The shares, in float64. A segment without a step has nothing to close along:
        there the shares add up to the integral, which is 0.
    """
    vectors = parts.to(averaged.step)
    total = averaged.change if credits is None else credits.to(averaged.change)
    gradient = averaged.closed(total)
    lacking = averaged.step - vectors.sum(1)
    each = torch.cat([vectors, lacking[:, None]], 1)
    found = (each @ gradient[:, :, None])[:, :, 0]
    apart = (each @ averaged.difference[:, :, None])[:, :, 0].abs()
    closure = (each @ (gradient - averaged.gradient)[:, :, None])[:, :, 0]
    longest = torch.linalg.vector_norm(each, dim=2).amax(1)
    certificate = Certificate(
        residual=averaged.residual.abs(),
        parts=apart.amax(1),
        bound=averaged.disagreement * longest,
        ends=total - averaged.change,
        closed=total - (averaged.gradient * averaged.step).sum(1),
        closed_part=closure.abs().amax(1),
        capped=averaged.capped,
    )
    return Shares(found[:, :-1], found[:, -1], certificate)
