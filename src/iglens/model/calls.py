"""Recording which modules a forward pass calls, with what, and what they give."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .structure import put, tensors


@dataclass(eq=False)
class Call:
    """One call of a module.

    Attributes:
        name: The module's name in the model.
        module: The module.
        args: Positional and keyword arguments, as `(args, kwargs)`.
        output: What it returned; None while it runs.
        depth: How many recorded modules it runs inside of.
    """

    name: str
    module: nn.Module
    args: tuple[tuple[Any, ...], dict[str, Any]]
    depth: int
    output: Any = None
    inside: tuple["Call", ...] = field(default=(), repr=False)

    def input_tensors(self) -> Iterator[Tensor]:
        """Every tensor it was given."""
        for _, tensor in tensors(self.args):
            yield tensor


@contextmanager
def recorded_calls(
    named_modules: Iterable[tuple[str, nn.Module]], *, copies: bool = False
) -> Iterator[list[Call]]:
    """Record this thread's calls of some modules, in the order in which they begin.

    With `copies`, tensors are kept as they were at the call: models work in place.
    """
    keep = _copied if copies else _itself
    calls: list[Call] = []
    running: list[Call] = []
    handles = []
    thread = threading.get_ident()

    def begin(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            if threading.get_ident() != thread:
                return
            given = keep((args, kwargs))
            call = Call(name, module, given, len(running), None, tuple(running))
            calls.append(call)
            running.append(call)

        return hook

    def end(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if threading.get_ident() == thread:
            running.pop().output = keep(output)

    try:
        for name, module in named_modules:
            handles.append(
                module.register_forward_pre_hook(begin(name), with_kwargs=True)
            )
            handles.append(module.register_forward_hook(end, with_kwargs=True))
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _itself(structure: Any) -> Any:
    """The structure, with the very tensors that the model uses."""
    return structure


def _copied(structure: Any) -> Any:
    """The structure with copies of its tensors."""
    for place, tensor in tensors(structure):
        structure = put(structure, place, tensor.clone())
    return structure


@contextmanager
def evaluating(model: nn.Module, *, gradients: bool = False) -> Iterator[None]:
    """Evaluation mode, without gradients unless they are wanted.

    Every module's mode is put back after.
    """
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with (
            torch.set_grad_enabled(gradients),
            _uncompiled(model),
            _experts_for_float64(model),
        ):
            yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def _uncompiled(model: nn.Module) -> Iterator[None]:
    """Run compiled modules eagerly: compiled code skips hooks that came later."""
    compiled = any(
        module._compiled_call_impl is not None or "_orig_mod" in module._modules
        for module in model.modules()
    )
    with torch.compiler.set_stance("force_eager") if compiled else nullcontext():
        yield


@contextmanager
def _experts_for_float64(model: nn.Module) -> Iterator[None]:
    """Let experts run one by one where the weights are float64.

    The fused kernel that Transformers prefers has no float64.
    """
    config: Any = getattr(model, "config", None)
    chosen = getattr(config, "_experts_implementation", None)
    weight = next(model.parameters(), None)
    if chosen is None or weight is None or weight.dtype != torch.float64:
        yield
        return
    try:
        config._experts_implementation = "eager"
        yield
    finally:
        config._experts_implementation = chosen
