r"""The ridge translator in closed form.

With `x = h_l`, `r = h_L - h_l`, `S` the covariance of `x` and `C` the covariance of
`x` with `r`, the translator minimises

    E |r - A x - b|^2 + lambda |A|^2,        lambda = c tr(S) / d

The optimal `b = E r - A E x` centres both sides; setting the derivative in `A` to zero
then gives `A (S + lambda) = C^T`. Only `A` is penalised: as `c` grows the translator
becomes the shift by the mean difference, and nothing pulls that shift to zero.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import ArgumentError, NonFiniteError
from .moments import Moments


def ridge_translator(
    moments: Moments, penalty: float, *, layer: int
) -> tuple[Float[Tensor, "d_model d_model"], Float[Tensor, " d_model"]]:
    """`A` and `b` of one layer, in float64.

    Args:
        moments: Of the layer's states and the last ones.
        penalty: `c`, relative to the mean variance of the states.
        layer: Its number, for messages.

    Raises:
        ArgumentError: If the penalty is negative, or too small for a covariance that
            has no inverse.
        NonFiniteError: If the moments hold NaN or infinity.
    """
    check_penalty(penalty)
    if not bool(torch.isfinite(moments.xx).all() & torch.isfinite(moments.xy).all()):
        raise NonFiniteError(
            f"The states of layer {layer} or the last hold NaN or infinity, so no lens "
            "can be fitted. Load the model in a wider `dtype`."
        )
    covariance = moments.xx / moments.n
    target = moments.xy / moments.n - covariance
    strength = penalty * float(covariance.diagonal().mean())
    covariance.diagonal().add_(strength)
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if int(failed):
        raise ArgumentError(
            f"The covariance of layer {layer} has no inverse at `ridge` {penalty:g}: "
            f"{moments.n} tokens do not span the {len(covariance)} dimensions. Give "
            "more text or a larger `ridge`."
        )
    weight = torch.cholesky_solve(target, factor).T
    bias = moments.mean_y - moments.mean_x - weight @ moments.mean_x
    return weight, bias


def check_penalty(penalty: float) -> None:
    """Refuse what is no penalty."""
    if not (penalty >= 0 and penalty < float("inf")):
        raise ArgumentError(f"`ridge` is {penalty}; it must be a number >= 0.")
