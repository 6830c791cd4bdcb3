"""The explicit readout: the traced tail, called piece by piece or read as a matrix."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..errors import UnsupportedModelError
from ..readout import AbstractReadout, CalledReadout, LinearReadout
from ..readout.abstract import at_least_float32
from ..readout.linear import identity
from .stream import Stream
from .tail import Operation, Step, Tail


def explicit_readout(tail: Tail, stream: Stream, vocab_size: int) -> AbstractReadout:
    """A readout from a traced tail.

    A head that is exactly `nn.Linear`, untouched by hooks, is read as a matrix, in
    blocks of the vocabulary. Any other (quantised, adapted, offloaded) is called.
    """
    template, stream = stream.template, replace(stream, prefix=0)
    head: Any = tail.head

    def own_logits(states: Tensor) -> Tensor:
        # a copy: modules and hooks may work in place
        cast = states.to(device=template.device, dtype=template.dtype, copy=True)
        rows = stream.from_vectors(cast)
        logits = _apply((*tail.before, head, *tail.after), rows)
        return _by_vector(logits, len(states)).to(states.device)

    common: dict[str, Any] = {
        "d_model": stream.width,
        "vocab_size": vocab_size,
        "dtype": template.dtype,
        "precision": at_least_float32(template.dtype),
        "postprocess": tail.postprocess,
        "kind": "explicit",
    }
    if not is_plain_linear(head):
        return CalledReadout(tail=own_logits, **common)

    def weights() -> tuple[Tensor, Tensor | None]:
        if not is_plain_linear(head):
            raise UnsupportedModelError(
                "The model's head was given a hook or another forward after it was "
                "verified: its weights are no longer what it computes. Make a new "
                "`Decoder` of the model."
            )
        return head.weight.detach(), _detached(head.bias)

    def normed(states: Tensor, dtype: torch.dtype) -> Tensor:
        rows = _apply_in(tail.before, stream.from_vectors(states), dtype)
        return _by_vector(rows, len(states))

    return LinearReadout(
        norm=normed,
        own_logits=own_logits,
        weights=weights,
        post=_sequence([step for step in tail.after if not step.is_cast]),
        **common,
    )


def is_plain_linear(module: nn.Module) -> bool:
    """Whether a module is a matrix product with a weight that can be read.

    A weight of any other class (quantised, spread over processes) calls itself a
    float tensor and does something else when it is multiplied.
    """
    return (
        type(module) is nn.Linear
        and "forward" not in module.__dict__
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and all(type(tensor) in (Tensor, nn.Parameter) for tensor in _own(module))
        and module.weight.is_floating_point()
        and module.weight.device.type != "meta"
    )


def _own(module: nn.Linear) -> tuple[Tensor, ...]:
    """The tensors of a linear layer, as Python sees them."""
    return (module.weight, *module.parameters(recurse=False))


def _by_vector(rows: Tensor, n_vectors: int) -> Tensor:
    """What was made of some vectors, a row for each; there may be none of them."""
    return rows.reshape(n_vectors, -1 if n_vectors else rows.shape[-1])


def _apply(steps: Iterable[Step], values: Tensor) -> Tensor:
    """Steps as the model runs them."""
    for step in steps:
        values = step(values)
    return values


def _apply_in(steps: Iterable[Step], values: Tensor, dtype: torch.dtype) -> Tensor:
    """Steps computed in another dtype: the model's own code on cast weights."""
    values = values.to(dtype, copy=True)
    for step in steps:
        if isinstance(step, Operation):
            values = values if step.is_cast else step(values)
        else:
            values = call_in(step, values, dtype)
    return values


def call_in(module: nn.Module, values: Tensor, dtype: torch.dtype) -> Tensor:
    """Call a module with its weights in `dtype`; the module itself keeps its own."""
    own = {
        name: tensor
        for name, tensor in chain(module.named_parameters(), module.named_buffers())
        if tensor.is_floating_point() and tensor.dtype != dtype
    }
    if not own:
        return module(values)
    cast = {name: tensor.to(dtype) for name, tensor in own.items()}
    return functional_call(module, cast, (values,))


def _sequence(operations: list[Operation]) -> Any:
    """Operations one after another; the identity itself if there are none."""
    if not operations:
        return identity
    return lambda values: _apply(operations, values)


def _detached(tensor: Tensor | None) -> Tensor | None:
    """Without its gradient, if it is there."""
    return None if tensor is None else tensor.detach()
