"""The post-norm of a part, frozen at what it took in the forward pass."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...inside import FrozenNorm
from ...readout.scaled_norm import scaled_norm
from ..calls import evaluating
from ..explicit import call_in


def frozen_norm(
    module: nn.Module,
    taken: Float[Tensor, "rows d_model"],
    device: torch.device,
) -> FrozenNorm | str:
    """A norm's form, proved on what it took, with its scale frozen there.

    Args:
        module: The norm.
        taken: What it took.
        device: Where the result goes.

    Returns:
        The norm, or why it has no such form.
    """

    def called(vectors: Tensor) -> Tensor:
        made: Tensor = call_in(module, vectors, torch.float64)
        return made.double()

    try:
        with evaluating(module):
            form = scaled_norm(called, taken.double())
    except (RuntimeError, TypeError, ValueError) as error:
        return f"its post-norm cannot be called alone ({type(error).__name__})"
    if form is None or form.offset.shape != taken.shape[1:]:
        return "its post-norm is no linear map over a scale"
    gain, offset = form.gain.to(device), form.offset.to(device)
    return FrozenNorm.at(replace(form, gain=gain, offset=offset), taken.to(device))
