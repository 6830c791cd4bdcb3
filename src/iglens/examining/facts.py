"""What a model is, read off the loaded objects, verified or not."""

from collections import Counter
from collections.abc import Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from ..model.declaration import Declaration
from ..model.runner import text_config
from ..model.source import Source
from ..records import ModelInfo
from ..records.findings import ModelFacts


def model_facts(
    model: nn.Module,
    tokenizer: Any,
    source: Source | ModelInfo,
    declaration: Declaration,
    n_logits: int | None = None,
    labels: tuple[str, ...] | None = None,
) -> ModelFacts:
    """What is known of a model without running it.

    Args:
        model: The loaded model.
        tokenizer: Its tokenizer, or None.
        source: Where it was loaded from.
        declaration: What was said about it.
        n_logits: Number of its logits, if they were seen.
        labels: What these stand for, if it is no tokens.
    """
    config = getattr(model, "config", None)
    parameters, dtypes = list(model.parameters()), Counter[str]()
    for weight in parameters:
        dtypes[_short(weight.dtype)] += weight.numel()
    devices = bytes_by_device(chain(parameters, model.buffers()))
    return ModelFacts(
        id=source.id,
        path=source.path,
        revision=source.revision,
        weights_sha256=source.weights_sha256,
        note=source.note,
        architecture=type(model).__name__,
        n_parameters=sum(dtypes.values()),
        n_bytes=sum(devices.values()),
        dtypes=dict(dtypes.most_common()),
        devices=devices,
        n_logits=n_logits,
        labels=labels,
        tokenizer_size=None if tokenizer is None else len(tokenizer),
        context=context(model),
        chat_template=bool(getattr(tokenizer, "chat_template", None)),
        attention=getattr(config, "_attn_implementation", None),
        quantisation=quantisation(model),
        declared=_declared(declaration),
    )


def context(model: nn.Module) -> int | None:
    """Tokens a model was made for, if its configuration says."""
    size = getattr(text_config(model), "max_position_embeddings", None)
    return int(size) if isinstance(size, int) and size > 0 else None


def bytes_by_device(weights: Iterable[Tensor]) -> dict[str, int]:
    """Bytes of some tensors by where they are; those on no device are offloaded."""
    found = Counter[str]()
    for tensor in weights:
        place = "offloaded" if tensor.device.type == "meta" else str(tensor.device)
        found[place] += tensor.numel() * tensor.element_size()
    return dict(found.most_common())


def quantisation(model: nn.Module) -> str | None:
    """How weights are quantised, by the configuration or by what they are held in."""
    config: Any = getattr(getattr(model, "config", None), "quantization_config", None)
    if config is not None:
        given = config if isinstance(config, dict) else vars(config)
        method = given.get("quant_method", type(config).__name__)
        return str(getattr(method, "value", method))
    odd = {
        type(held).__name__
        for weight in model.parameters()
        for held in (weight, weight.data)
        if type(held) not in (nn.Parameter, Tensor)
    }
    whole = {
        _short(weight.dtype)
        for weight in model.parameters()
        if not (weight.is_floating_point() or weight.is_complex())
    }
    return ", ".join(sorted(odd | whole)) or None


def _declared(declaration: Declaration) -> tuple[str, ...]:
    """The fields of a declaration that say something."""
    given = {
        "blocks": declaration.blocks,
        "first": declaration.first,
        "inputs": None if declaration.inputs is None else "a function",
        "causal": None if declaration.causal else "False",
    }
    return tuple(f"{name}={value}" for name, value in given.items() if value)


def _short(dtype: torch.dtype) -> str:
    """A dtype without the library's name."""
    return str(dtype).removeprefix("torch.")
