"""What a model must be before any of its readouts can be proved."""

from itertools import chain

import torch
from torch import Tensor, nn

from ..errors import NonFiniteError, UnsupportedModelError
from ..readout.fidelity import MARGIN
from ..readout.measure import gap, total_variation
from .noise import beside_another_text, least_gap, rounding
from .runner import Runner


def check_values(model: nn.Module) -> None:
    """Refuse weights that are only shapes, before they are multiplied with.

    PyTorch takes a matrix product with such a weight for done, and gives whatever lay
    in memory.
    """
    if names := weights_without_values(model):
        raise UnsupportedModelError(
            f"{type(model).__name__} has {len(names)} weights without values, on the "
            f"device 'meta' ({', '.join(names[:3])}). Load them, with "
            "`from_pretrained` or `load_state_dict(..., assign=True)`."
        )


def weights_without_values(model: nn.Module) -> list[str]:
    """Names of weights that are only shapes, and no hook that would bring values.

    Accelerate leaves offloaded weights on the same device, and loads them when a
    module is called.
    """
    served = tuple(
        f"{name}." if name else ""
        for name, module in model.named_modules()
        if _brings_values(module)
    )
    return [
        name
        for name, tensor in chain(model.named_parameters(), model.named_buffers())
        if tensor.device.type == "meta" and not name.startswith(served)
    ]


def _brings_values(module: nn.Module) -> bool:
    """Whether Accelerate loads the weights of a module when it is called."""
    hook = getattr(module, "_hf_hook", None)
    return hook is not None and bool(getattr(hook, "offload", True))


def check_finite(runner: Runner, logits: Tensor) -> None:
    """Refuse NaN logits, naming the weights that cause them if they do."""
    if not bool(torch.isnan(logits).any()):
        return
    bad = [
        name
        for name, weight in runner.model.named_parameters()
        if weight.device.type != "meta" and not bool(torch.isfinite(weight).all())
    ]
    cause = (
        f"these weights are not finite: {', '.join(bad[:5])}"
        if bad
        else ("its weights are finite, so it overflows; load it in a wider `dtype`")
    )
    raise NonFiniteError(f"{runner.name} gives NaN logits: {cause}.")


def check_determinism(runner: Runner, ids: Tensor, logits: Tensor) -> None:
    """Refuse a model whose two equal runs differ by more than rounding.

    Some kernels add up in whatever order their threads arrive: the last bits of two
    equal runs may differ, and that is noise like any other.
    """
    again, measure = runner(ids).flatten(0, 1), runner.measure
    if float(gap(again, logits, measure).max()) > MARGIN * least_gap(logits, measure):
        difference = float((again - logits).nan_to_num(0.0).abs().max())
        raise UnsupportedModelError(
            f"{runner.name} is not deterministic in evaluation mode (two equal runs "
            f"differ by {difference:.2g} in a logit); its readout cannot be verified."
        )


def check_inputs(runner: Runner, ids: Tensor, logits: Tensor) -> None:
    """Refuse declared inputs that do not depend on the text.

    The distributions would be those of another text than the one that is shown.
    """
    if torch.equal(runner(_other_last_token(ids))[-1, -1], logits[-1]):
        raise UnsupportedModelError(
            f"{runner.name} gives the same logits whatever the last token is: what "
            "`Declaration(inputs=...)` gives does not hold the token ids it is given."
        )


def check_causality(runner: Runner, ids: Tensor, logits: Tensor) -> None:
    """Refuse a model in which earlier positions see later tokens.

    What another text in the batch changes is no sign of that: some quantised layers
    take one scale for all numbers that they are given at once.
    """
    moved = total_variation(runner(_other_last_token(ids))[0, :-1], logits[:-1])
    beside = total_variation(runner(beside_another_text(ids))[0], logits)
    if float(moved.max()) > MARGIN * max(float(beside.max()), rounding(logits)):
        raise UnsupportedModelError(
            f"{runner.name} is not causal: changing the last token changes what is "
            f"predicted before it (total variation {float(moved.max()):.2g}). Only "
            "decoders that read left to right have a next-token probability. If this "
            "one generates that way all the same, say so with "
            "`Declaration(causal=False)`: what follows a whole text is then explained."
        )


def _other_last_token(ids: Tensor) -> Tensor:
    """The text with another token at its end."""
    changed = ids.clone()
    changed[:, -1] = (changed[:, -1] + 1) % max(2, int(ids.max()) + 1)
    return changed
