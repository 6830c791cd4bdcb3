"""The model's own readout in float64, whole rows of logits at a time."""

import copy
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

AT_ONCE = 64
"""States whose logits are held at once."""


class _StayDouble(TorchFunctionMode):
    """Norms that go to float32 by themselves stay in float64."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Leave float64 tensors alone when they are told to become float32."""
        given = (*args, *(kwargs or {}).values())
        narrowing = func is Tensor.float or (
            func is Tensor.to and torch.float32 in given
        )
        if narrowing and given[0].dtype == torch.float64:
            return given[0]
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def probabilities(model: Any, states: Tensor, targets: Tensor) -> Tensor:
    """What the head says of each target, in float64 throughout.

    Args:
        model: A causal model of Transformers, with `model.norm` and `lm_head`, and
            nothing after the head.
        states: Residual states before the final norm, points x rows x d_model.
        targets: A token id per row.

    Returns:
        Probabilities, points x rows.
    """
    norm = copy.deepcopy(model.model.norm).double()
    unembed = model.lm_head.weight.detach().double()
    flat, wanted = states.flatten(0, 1), targets.repeat(len(states))
    found = []
    with _StayDouble():
        for part, tokens in zip(
            flat.split(AT_ONCE), wanted.split(AT_ONCE), strict=True
        ):
            logits = norm(part.double()) @ unembed.T
            chosen = logits.gather(1, tokens[:, None])[:, 0]
            found.append((chosen - logits.logsumexp(1)).exp())
    return torch.cat(found).view(states.shape[:2])


def largest_error(read: Tensor, exact: Tensor) -> float:
    """The largest difference of probabilities."""
    return float((read.double() - exact).abs().max())
