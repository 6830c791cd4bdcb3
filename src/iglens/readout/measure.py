"""How far apart two readings of the same states are, and what that is measured in.

Logits of one distribution are compared as distributions: their softmax is what the
model says. A reward, or labels that do not exclude each other, are no distribution
(the softmax of one logit is 1 whatever it is): there the logits are compared.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ArgumentError
from ..records.target import Unit

Measure = Literal["total_variation", "logit"]
"""Total variation of two distributions, or the largest difference of a logit."""


def total_variation(
    ours: Float[Tensor, "points vocab"], own: Float[Tensor, "points vocab"]
) -> Float[Tensor, " points"]:
    """`½ Σ_v |softmax(ours)_v - softmax(own)_v|`, in float32 at least."""
    return _softmax(ours).sub_(_softmax(own)).abs_().sum(-1).double() / 2


def largest_difference(
    ours: Float[Tensor, "points vocab"], own: Float[Tensor, "points vocab"]
) -> Float[Tensor, " points"]:
    """`max_v |ours_v - own_v|`; equal infinities do not differ."""
    moved = (ours.double() - own.double()).abs()
    return moved.masked_fill(ours == own, 0.0).amax(-1)


def gap(
    ours: Float[Tensor, "points vocab"],
    own: Float[Tensor, "points vocab"],
    measure: Measure,
) -> Float[Tensor, " points"]:
    """How far apart two readings of some states are.

    Example:
        >>> one, other = torch.tensor([[3.0]]), torch.tensor([[5.0]])
        >>> gap(one, other, "total_variation").item(), gap(one, other, "logit").item()
        (0.0, 2.0)
    """
    function = total_variation if measure == "total_variation" else largest_difference
    return function(ours, own)


def meaningful_unit(wanted: Unit | None, measure: Measure, n_logits: int) -> Unit:
    """A unit that logits judged like this have; for None the usual one.

    Raises:
        ArgumentError: If it is a unit of distributions, and there is none.
    """
    if measure == "total_variation":
        return wanted or "probability"
    if wanted in (None, "logit"):
        return "logit"
    reason = (
        "the softmax of a single logit is 1 whatever it is"
        if n_logits == 1
        else "its labels are judged one by one, and share no softmax"
    )
    raise ArgumentError(
        f"`unit` is {wanted!r}, but these logits have no distribution: {reason}. Use "
        '"logit".'
    )


def in_words(gap: float, measure: Measure) -> str:
    """A gap for a sentence, after "misses by".

    Example:
        >>> in_words(0.25, "logit")
        '0.25 in a logit'
    """
    if measure == "logit":
        return f"{gap:.2g} in a logit"
    return f"a total variation of {gap:.2g}"


def _softmax(logits: Tensor) -> Tensor:
    """Softmax in float32 at least."""
    precise = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(precise).softmax(-1)
