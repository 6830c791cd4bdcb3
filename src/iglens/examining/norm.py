"""What a norm does, found out by giving it vectors: its kind, its gain, its shift."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..model.explicit import call_in
from ..records.findings import NormFacts

SIZE = 100.0
"""Spread of the vectors tried: so large that the norm's epsilon does not matter."""

CLOSE = 1e-3
"""Relative difference that counts as none; many norms compute in float32 inside."""


@torch.no_grad()
def norm_facts(
    name: str, module: nn.Module, like: Float[Tensor, "*rest width"]
) -> NormFacts | None:
    """What a module does to vectors, or None if it is no norm.

    A norm forgets the size of a vector: `f(2 x) = f(x)`. It is a layer norm if it also
    forgets the mean, and an RMS norm otherwise. With `u` the normed vector, `f(x) = g u
    + b`; opposite vectors tell `g` and `b` apart, and `g` is compared with the weights.

    Args:
        name: The module's name.
        module: A module that maps a tensor to one of the same shape.
        like: A tensor it takes, for shape and device.
    """
    x = torch.randn(
        (4, *like.shape[1:]),
        dtype=torch.float64,
        generator=torch.Generator().manual_seed(0),
    )
    x = (SIZE * x).to(like.device)
    try:
        given = _Given(module, x)
        return _judged(name, module, given) if given.forgets_size else None
    except (RuntimeError, TypeError, ValueError, AttributeError):
        return None


def _judged(name: str, module: nn.Module, given: "_Given") -> NormFacts:
    """What a norm gave for some vectors, in words."""
    x, centred = given.x, _close(given.moved, given.plain)
    u = x - x.mean(-1, keepdim=True) if centred else x
    u = u * u.square().mean(-1, keepdim=True).rsqrt()
    shift = (given.plain + given.opposite)[0] / 2
    odd = (given.plain - given.opposite) / 2
    gain = (odd * u).sum(0) / u.square().sum(0)
    known = _close(gain * u, odd)
    return NormFacts(
        module=name,
        module_class=type(module).__name__,
        kind=("layer" if centred else "RMS") if known else "other",
        gain=_gain_form(module, gain) if known else "other",
        shift=bool(shift.abs().max() > 1e-6 * odd.abs().max()),
    )


class _Given:
    """What a module gives for some vectors, and for changed ones."""

    def __init__(self, module: nn.Module, x: Tensor) -> None:
        """Call it four times, in float64 as far as its own code allows."""
        self.x = x
        self.plain, self.doubled, self.moved, self.opposite = (
            call_in(module, changed, torch.float64).double()
            for changed in (x, 2 * x, x + SIZE, -x)
        )
        if self.plain.shape != x.shape:
            raise ValueError("it changes the shape")

    @property
    def forgets_size(self) -> bool:
        """Whether twice a vector gives the same."""
        return _close(self.doubled, self.plain)


def _gain_form(module: nn.Module, gain: Tensor) -> str:
    """How the weight that a norm has enters as a gain."""
    for weight in module.parameters():
        if weight.numel() != gain.numel():
            continue
        w = weight.detach().double().view(gain.shape).to(gain.device)
        if _close(gain, w):
            return "w"
        if _close(gain, 1 + w):
            return "1 + w"
    return "none" if _close(gain, torch.ones_like(gain)) else "other"


def _close(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal up to rounding, relative to the larger."""
    size = max(float(one.abs().max()), float(other.abs().max()), 1e-30)
    return bool(float((one - other).abs().max()) <= CLOSE * size)
