"""Levels of targets in whole rows of logits, differentiable."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ArgumentError
from ..readout.target import level
from ..records import Target, Unit


def level_of(
    logits: Float[Tensor, "runs vocab"], target: Target, unit: Unit
) -> Float[Tensor, " runs"]:
    """Level of a target in every row, in float64; see `iglens.readout.target`.

    Raises:
        ArgumentError: If the target is a scalar of the whole distribution.
    """
    if not target.of_tokens:
        raise ArgumentError(
            f"`target` is {target.name!r}; effects are of tokens, sets of them, or "
            "contrasts."
        )
    rows = logits.cpu().double()
    if target.against and unit == "log_probability":  # the normaliser cancels
        return _inside(rows, target.ids) - _inside(rows, target.against)
    first = _side(rows, target.ids, unit)
    return first - _side(rows, target.against, unit) if target.against else first


def _side(rows: Tensor, ids: Sequence[int], unit: Unit) -> Tensor:
    """Level of a set of tokens."""
    own = _inside(rows, ids)
    if unit == "logit":
        return own
    others = torch.ones(rows.shape[1], dtype=torch.bool)
    others[list(ids)] = False
    return level(own - rows[:, others].logsumexp(1), unit)


def _inside(rows: Tensor, ids: Sequence[int]) -> Tensor:
    """Log-sum-exp of a set of tokens."""
    return rows[:, list(ids)].logsumexp(1)
