r"""Final norms that are a linear map over a scale, found by probing.

RMSNorm, LayerNorm, their variants with another gain, no norm at all, and any of these
with a projection before the head are all

    N(h) = beta + G C h / r(h),        r(h)^2 = mean((C h)^2) + eps,

with `C` the identity or the subtraction of the mean, and `r = 1` where there is no
scale. Then the logits are affine along a straight line but for one number per point,
which is what makes integrals along it cheap. A readout's norm is any callable, so the
form is not read from a class: it is recovered from what the callable gives for some
vectors, and believed only if it then gives the same on others, from far below the
scale of `eps` to far above, and on the states that are to be integrated.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

Normed = Callable[[Tensor], Tensor]
"""Normed float64 states, as float64."""

LARGE = 2.0**20
"""Scale at which no `eps` is seen any more."""

EXACT = 1e-10
"""Largest relative error of the form, where the callable computes in float64."""

SINGLE = 1e-5
"""The same where it computes in float32 whatever it is given, as most norms do."""

_DENSE = 2**21
"""Largest number of entries of a projection that is probed column by column."""

_ROWS = 256
"""States that are normed together."""


@dataclass(frozen=True, eq=False)
class ScaledNorm:
    """`beta + G C h / r(h)`, in float64.

    Attributes:
        gain: `G`: its diagonal, or the whole matrix.
        offset: `beta`.
        centred: Whether `C` subtracts the mean.
        scaled: Whether there is a scale; `r = 1` if not.
        eps: What is added under the root.
    """

    gain: Float[Tensor, "*d_head d_model"]
    offset: Float[Tensor, " d_head"]
    centred: bool
    scaled: bool
    eps: float = 0.0

    def centre(self, vectors: Float[Tensor, "*points d_model"]) -> Tensor:
        """`C h`."""
        if not self.centred:
            return vectors
        return vectors - vectors.mean(-1, keepdim=True)

    def scale(self, vectors: Float[Tensor, "*points d_model"]) -> Tensor:
        """`r(h)`."""
        if not self.scaled:
            return torch.ones_like(vectors[..., 0])
        return (self.centre(vectors).square().mean(-1) + self.eps).sqrt()

    def linear(self, vectors: Float[Tensor, "*points d_model"]) -> Tensor:
        """`G C h`, what a head multiplies but for the scale."""
        centred = self.centre(vectors)
        return centred * self.gain if self.gain.dim() == 1 else centred @ self.gain.T

    def transposed(self, vectors: Float[Tensor, "*points d_head"]) -> Tensor:
        """`C G^T y`, the way back to the residual stream."""
        if self.gain.dim() == 1:
            return self.centre(vectors * self.gain)
        return self.centre(vectors @ self.gain)

    def __call__(self, vectors: Float[Tensor, "*points d_model"]) -> Tensor:
        """`N(h)`."""
        return self.offset + self.linear(vectors) / self.scale(vectors)[..., None]


@torch.no_grad()
def scaled_norm(
    norm: Normed, states: Float[Tensor, "points d_model"]
) -> ScaledNorm | None:
    """The form of a norm, if it has this form.

    Args:
        norm: Maps float64 states to what the head multiplies.
        states: States on which the form must hold, besides random ones.

    Returns:
        The form, equal to the callable on all of them within its own rounding; None
        if there is none.

    Example:
        >>> form = scaled_norm(lambda h: h * 3, torch.ones(1, 4).double())
        >>> form.gain.tolist(), form.scaled
        ([3.0, 3.0, 3.0, 3.0], False)
    """
    probes = _random(8, states)
    if not bool(norm(probes).isfinite().all()):
        return None
    within = EXACT if _sees_double(norm, probes) else SINGLE
    scales = 2.0 ** torch.arange(-36, 21, 4, dtype=states.dtype, device=states.device)
    tested = torch.cat([*(probes * scale for scale in scales), states]).split(_ROWS)
    offset = (norm(probes) + norm(-probes)).mean(0) / 2
    unit = states.new_ones(states.shape[1])
    for centred, scaled in ((False, False), (False, True), (True, True)):
        form = ScaledNorm(unit, offset, centred, scaled)
        if scaled:
            form = replace(form, eps=_eps(norm, form, probes[0]))
        for find in (_diagonal, _matrix):
            gain = find(norm, form)
            if gain is None:
                continue
            found = replace(form, gain=gain)
            if all(_apart(found(some), norm(some)) <= within for some in tested):
                return found
    return None


def _random(n: int, like: Tensor) -> Tensor:
    """Standard normal vectors that float32 holds exactly, the same every time."""
    seeded = torch.Generator().manual_seed(0)  # of the CPU: other devices lack one
    return torch.randn(n, like.shape[1], generator=seeded).to(like)


def _sees_double(norm: Normed, probes: Tensor) -> bool:
    """Whether digits beyond float32 reach the result."""
    nudged = probes + 2.0**-36 * probes.roll(1, 0)
    return not torch.equal(norm(nudged), norm(probes))


def _apart(found: Tensor, expected: Tensor) -> float:
    """Largest error of any row, relative to the row's largest entry; NaN is infinite.

    A row on which both are NaN (no `eps`, and a state that is zero) is no evidence.
    """
    both = found.isnan().all(1) & expected.isnan().all(1)
    size = expected.abs().amax(1).clamp(min=torch.finfo(expected.dtype).tiny)
    error = ((found - expected).abs().amax(1) / size)[~both]
    return float(error.nan_to_num(torch.inf).max()) if len(error) else 0.0


def _eps(norm: Normed, form: ScaledNorm, probe: Tensor) -> float:
    """What is added to the mean square, from the scale at which it halves the norm."""
    probe = form.centre(probe)
    probe = probe / probe.square().mean().sqrt()
    scales = 2.0 ** torch.arange(0, -41, -1, dtype=probe.dtype, device=probe.device)
    normed = norm(torch.cat([probe[None] * LARGE, scales[:, None] * probe]))
    full, shrunk = normed[0] - form.offset, normed[1:] - form.offset
    share = (shrunk @ full / full.square().sum()).square()  # s^2 / (s^2 + eps)
    if not bool((share < 0.9).any()):
        return 0.0  # none, or none that these states could tell
    at = (share - 0.5).abs().nan_to_num(torch.inf).argmin()
    return float(scales[at] ** 2 * (1 / share[at] - 1))


def _diagonal(norm: Normed, form: ScaledNorm) -> Tensor | None:
    """The gain of every dimension by itself, from a vector of large plus and minus."""
    if form.offset.shape != form.gain.shape:
        return None
    vector = torch.full_like(form.gain, LARGE)
    vector[1::2] = -LARGE
    normed = norm(vector[None])[0] - form.offset
    centred = form.centre(vector)
    return torch.where(centred == 0, 0.0, normed * form.scale(vector) / centred)


def _matrix(norm: Normed, form: ScaledNorm) -> Tensor | None:
    """The whole map, column by column."""
    d_model = len(form.gain)
    if d_model * max(d_model, len(form.offset)) > _DENSE:
        return None
    vectors = torch.eye(d_model).to(form.gain) * LARGE
    columns = (norm(vectors) - form.offset) * form.scale(vectors)[:, None] / LARGE
    return columns.T.contiguous()
