r"""The gradient of the divergence from the final distribution, through a linear head.

With `z = W norm(t) + b`, `q = softmax(post(z))` and the final distribution `p`,

    d KL(p || q) / d z = post'(z) (q - p)

(because `p` sums to 1), and one product with `W` carries it to `norm(t)`. From there
the model's own norm module is differentiated by torch.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import UnsupportedModelError
from ...readout import AbstractReadout, LinearReadout
from ...readout.linear import identity

_COLUMNS = 8192


def differentiable(readout: AbstractReadout) -> LinearReadout:
    """The readout, if gradients can be taken through it.

    Raises:
        UnsupportedModelError: If its head is called, not read.
    """
    if not isinstance(readout, LinearReadout):
        raise UnsupportedModelError(
            "This model's head cannot be read as a matrix (it is quantised, adapted or "
            "offloaded), so no gradient can be taken through it. Fit the lens without "
            "`--polish`."
        )
    return readout


def divergence_gradient(
    readout: LinearReadout,
    states: Float[Tensor, "rows d_model"],
    final: Float[Tensor, "rows vocab"],
) -> tuple[float, Float[Tensor, "rows d_model"]]:
    """Summed `KL(p || q)` in nats, and its gradient in the states.

    Args:
        readout: The model's head.
        states: What it reads.
        final: Log-probabilities of `p`.

    Raises:
        UnsupportedModelError: If the norm has no derivative.
    """
    leaf = states.detach().requires_grad_()
    with torch.enable_grad():
        normed = readout.norm(leaf, readout.precision)
    loss, gradient = _at_head(readout, normed.detach(), final)
    try:
        (at_states,) = torch.autograd.grad(normed, leaf, gradient)
    except RuntimeError as error:
        raise UnsupportedModelError(
            f"What stands before this model's head has no derivative ({error}). Fit "
            "the lens without `--polish`."
        ) from error
    return loss, at_states


@torch.no_grad()
def _at_head(
    readout: LinearReadout, normed: Tensor, final: Tensor
) -> tuple[float, Tensor]:
    """The summed divergence, and its gradient in what enters the head."""
    unembed, bias = readout.weights()
    starts = range(0, readout.vocab_size, _COLUMNS)

    def weight(start: int) -> Tensor:
        return unembed[start : start + _COLUMNS].to(normed)

    raw = torch.empty_like(final)
    for start in starts:
        block = raw[:, start : start + _COLUMNS]
        torch.matmul(normed, weight(start).T, out=block)
        if bias is not None:
            block += bias[start : start + _COLUMNS].to(normed)
    ours = readout.post(raw.clone()).log_softmax(1)
    target = final.exp()
    loss = (target * (final - ours)).masked_fill_(final == -torch.inf, 0.0)
    slope = _through(readout, raw, ours.exp_().sub_(target))
    gradient = torch.zeros_like(normed)
    for start in starts:
        gradient.addmm_(slope[:, start : start + _COLUMNS], weight(start))
    return float(loss.sum(dtype=torch.float64)), gradient


def _through(readout: LinearReadout, raw: Tensor, slope: Tensor) -> Tensor:
    """The gradient before the post-processing, from the one after it."""
    if readout.post is identity:
        return slope
    leaf = raw.requires_grad_()
    with torch.enable_grad():
        values = readout.post(leaf)
    return torch.autograd.grad(values, leaf, slope)[0]
