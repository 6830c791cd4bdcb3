"""The target's level as plain torch operations, to be differentiated."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UnsupportedModelError
from ..readout import CalledReadout, LinearReadout
from ..records import Target, Unit
from .case import Case

_BUDGET = 64 * 2**20
"""Bytes for rows of logits that are differentiated together."""


def plain_level(
    logits: Float[Tensor, "*points vocab"], target: Target, unit: Unit
) -> Float[Tensor, "*points"]:
    """The level of a token, a set or a contrast, from whole rows of logits.

    Example:
        >>> rows = torch.zeros(1, 4).double()
        >>> plain_level(rows, Target((0,), "a"), "probability")
        tensor([0.2500], dtype=torch.float64)
    """
    value = _side(logits, target.ids, unit)
    return value - _side(logits, target.against, unit) if target.against else value


def _side(logits: Tensor, ids: tuple[int, ...], unit: Unit) -> Tensor:
    """The level of a set."""
    chosen = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
    chosen[list(ids)] = True
    inside = logits[..., chosen].logsumexp(-1)
    if unit == "logit":
        return inside
    margin = inside - logits[..., ~chosen].logsumexp(-1)
    match unit:
        case "probability":
            return margin.sigmoid()
        case "log_probability":
            return torch.nn.functional.logsigmoid(margin)
        case _:
            return margin


def gradients(
    case: Case, states: Float[Tensor, "points d_model"], unit: Unit
) -> tuple[Float[Tensor, " points"], Float[Tensor, "points d_model"]]:
    """Levels in the case's unit, and gradients of the level in another, in float64.

    Every state counts twice at the head: there and back.

    Raises:
        UnsupportedModelError: If what stands before the head has no derivative.
    """
    size = max(1, _BUDGET // (case.trace.readout.vocab_size * 8 * 4))
    pieces = [_some(case, some, unit) for some in states.split(size)]
    values, slopes = zip(*pieces, strict=True)
    return torch.cat(values), torch.cat(slopes)


def _some(case: Case, states: Tensor, unit: Unit) -> tuple[Tensor, Tensor]:
    """The same of as many states as fit."""
    with torch.enable_grad():
        leaf = states.detach().clone().requires_grad_()
        logits = _logits(case, leaf).double()
        values = plain_level(logits, case.target, case.unit).detach()
        if not logits.requires_grad:
            raise UnsupportedModelError(
                "This model's head is called without derivatives, so there is no "
                "gradient."
            )
        (found,) = torch.autograd.grad(
            plain_level(logits, case.target, unit).sum(), leaf
        )
    case.evaluations.head += len(states)
    return values, found.double()


def _logits(case: Case, states: Tensor) -> Tensor:
    """Whole rows of logits, in the readout's precision where that can be chosen."""
    match case.trace.readout:
        case LinearReadout() as readout:
            unembed, bias = readout.weights()
            dtype = readout.precision
            normed = readout.norm(states, dtype).to(dtype)
            offset = None if bias is None else bias.to(dtype)
            logits = torch.nn.functional.linear(normed, unembed.to(dtype), offset)
            return readout.post(logits)
        case CalledReadout() as readout:
            return readout.tail(states.to(readout.dtype))
        case other:
            raise UnsupportedModelError(f"A {type(other).__name__} has no gradient.")
