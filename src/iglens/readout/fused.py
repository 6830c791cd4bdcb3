"""Which pass over the vocabulary: the plain one, or a kernel that has proved itself.

On a GPU the plain pass writes every logit to memory and reads it back; `kernel` keeps
them on the chip and multiplies on tensor cores, each float32 split in three. It is used
for a head once it was no less accurate than the plain pass against float64, and
faster, on the first states that were read with that head. Whatever goes wrong, the
plain pass is there. `IGLENS_KERNEL=plain` keeps to it.
"""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .linear import Elementwise, LinearProjection, identity

DEVICES = ("cuda",)
"""Kinds of device that the kernel is tried on."""

FEWEST, PROVING = 256, 64
"""States of a pass from which on it is tried, and those that the proof is made on."""

Normalised = tuple[Float[Tensor, " points"], Float[Tensor, " points"]]
"""Log-sum-exp and maximum of all logits but the wanted tokens'."""

Pass = Callable[[LinearProjection, Int[Tensor, "points slots"]], Normalised]

_log = logging.getLogger(__name__)

_chosen: dict[tuple[object, ...], bool] = {}
"""Heads that were tried, and whether the kernel is used for them."""


def fused(
    projection: LinearProjection, tokens: Int[Tensor, "points slots"], plain: Pass
) -> Normalised | None:
    """What the kernel gives; None where the plain pass is to be used.

    Args:
        projection: Normed states.
        tokens: Tokens that stand apart; -1 marks an unused slot.
        plain: The plain pass, to be proved and timed against.
    """
    if projection.normed.device.type not in DEVICES or len(tokens) < FEWEST:
        return None
    weight, bias = projection.readout.weights()
    key = (
        weight.device, weight.dtype, tuple(weight.shape), bias is None,
        projection.readout.post,
    )  # fmt: skip
    if key not in _chosen:
        _chosen[key] = _fits(projection, weight) and _tried(projection, tokens, plain)
    return _kernel(projection, tokens) if _chosen[key] else None


def _fits(projection: LinearProjection, weight: Tensor) -> bool:
    """Whether this is what the kernel computes."""
    return (
        os.environ.get("IGLENS_KERNEL") != "plain"
        and projection.change is None
        and projection.normed.dtype == torch.float32
        and weight.is_floating_point()
        and (projection.readout.post is identity or soft_cap(projection.readout.post))
        is not None
        and find_spec("triton") is not None
    )


def soft_cap(post: Elementwise) -> float | None:
    """The `c` of a post-processing `c tanh(z / c)`; None if it is none.

    Example:
        >>> soft_cap(lambda z: 30 * torch.tanh(z / 30))
        30.0
        >>> soft_cap(torch.relu) is None
        True
    """
    cap = post(torch.tensor([torch.inf], dtype=torch.float64))
    places = torch.linspace(-3, 3, 25, dtype=torch.float64) * cap
    if not 0 < float(cap) < torch.inf:
        return None
    same = torch.allclose(post(places), cap * torch.tanh(places / cap), rtol=1e-12)
    return float(cap) if same else None


def _kernel(
    projection: LinearProjection, tokens: Int[Tensor, "points slots"]
) -> Normalised:
    """The kernel's pass."""
    from .kernel import normalise

    weight, bias = projection.readout.weights()
    post = projection.readout.post
    cap = None if post is identity else soft_cap(post)
    return normalise(projection.normed, weight, bias, tokens, cap)


def _tried(
    projection: LinearProjection, tokens: Int[Tensor, "points slots"], plain: Pass
) -> bool:
    """Whether the kernel runs here, is as accurate as the plain pass, and faster."""
    try:
        few = slice(0, PROVING)
        accurate = _accurate(_some(projection, few), tokens[few], plain)
        return accurate and _faster(projection, tokens, plain)
    except Exception as error:  # a compiler, a driver: whatever it is, there is a way
        _log.warning("The fused kernel is not used: %s", error)
        return False


def _some(projection: LinearProjection, points: slice) -> LinearProjection:
    """The same for some of the points."""
    return replace(projection, normed=projection.normed[points])


def _accurate(
    projection: LinearProjection, tokens: Int[Tensor, "points slots"], plain: Pass
) -> bool:
    """Whether it is about as far from float64 as the plain pass."""
    precise = replace(projection, normed=projection.normed.double())
    wanted, _ = plain(precise, tokens)
    known = wanted.isfinite()
    off = [
        float((found - wanted)[known].abs().nan_to_num(torch.inf).amax())
        for found in (plain(projection, tokens)[0], _kernel(projection, tokens)[0])
    ]
    few = 8 * torch.finfo(torch.float32).eps * float(wanted[known].abs().amax())
    if not off[1] <= max(2 * off[0], few):
        _log.warning("The fused kernel is not used: off by %.2g, not %.2g", *off[::-1])
        return False
    return True


def _faster(
    projection: LinearProjection, tokens: Int[Tensor, "points slots"], plain: Pass
) -> bool:
    """Whether it takes less time than the plain pass, of two turns each."""
    ways: tuple[Pass, Pass] = (_kernel, plain)
    times = [min(_seconds(way, projection, tokens) for _ in range(2)) for way in ways]
    return times[0] < times[1]


def _seconds(
    way: Pass, projection: LinearProjection, tokens: Int[Tensor, "points slots"]
) -> float:
    """How long a pass takes, the device waited for."""
    start = time.perf_counter()
    rest, _ = way(projection, tokens)
    rest.cpu()
    return time.perf_counter() - start
