"""Watching a forward pass: every operator, module call and boundary between blocks."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils.weak import WeakTensorKeyDictionary

from ..attention import intercepted_attention
from ..boundaries import boundaries
from ..runner import Runner
from ..stream import Stream
from ..structure import tensors
from .dataflow import Flow, ModuleCall, Node
from .sublayers import Site
from .terms import terms
from .values import Origin, Values, distinct, memory

_SHAPE_ONLY = ("_like", "new_", "empty", "sym_", "is_same_size")
"""Operators that read no numbers of what they are given, by parts of their names."""

_OVERWRITING = ("copy_", "fill_", "zero_")
"""Operators that leave nothing of what stood where they write."""


def record_flow(
    runner: Runner, stream: Stream, ids: Tensor, *, values: bool = False
) -> Flow:
    """The graph of one forward pass of a model whose stream is one tensor.

    Args:
        runner: The model.
        stream: Where its residual stream runs.
        ids: Token ids of some texts.
        values: Whether to keep the numbers of what is as large as the stream.
    """
    recorder = Recorder(runner.model, stream.n_layers, values)
    with (
        intercepted_attention(recorder.attend),
        boundaries(stream, recorder.boundary),
        _calls(recorder, runner.model),
        recorder,
    ):
        runner(ids)
    return recorder.flow


class Recorder(TorchDispatchMode):
    """Follows what stems from `h_0` through every operator and module call."""

    def __init__(self, model: nn.Module, n_layers: int, values: bool) -> None:
        """Take the model's weights; `values` as for `record_flow`."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.flow = Flow()
        self.values = Values(self._append)
        self._keeps, self._n_layers = values, n_layers
        self._shape = torch.Size()
        self._running: list[ModuleCall] = []
        self._numbers: dict[str, int] = defaultdict(int)
        weights = (p for p in model.parameters() if p.device.type != "meta")
        self._weights = {memory(p) for p in weights if is_matrix(p)}
        self._derived = WeakTensorKeyDictionary()  # tensors made of weights alone

    @property
    def _in_blocks(self) -> bool:
        """Whether `h_0` was passed, and the last state was not."""
        return 0 < len(self.flow.states) <= self._n_layers

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operator and note what it made of what."""
        kwargs = kwargs or {}
        if not self._in_blocks:
            return func(*args, **kwargs)
        given = [tensor for _, tensor in tensors((args, kwargs))]
        written = _written(func, args, kwargs)
        origin = self._origin(_name(func, args), args, kwargs, given, written)
        output = func(*args, **kwargs)
        made = [t for _, t in tensors(output) if not any(t is w for w in written)]
        if len(made) + len(written) > 1:
            origin = replace(origin, terms=None)
        for tensor in made:
            own = origin if origin.parents else None
            self.values.made(tensor, own, is_view=func.is_view)
            if own is None and any(self._is_weight(t) for t in given):
                self._derived[tensor] = True
        for tensor in written:
            self.values.written(tensor, origin)
        return output

    def _origin(
        self,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        given: Sequence[Tensor],
        written: Sequence[Tensor],
    ) -> Origin:
        """Where the values come from that an operator is about to make."""
        if any(part in name for part in _SHAPE_ONLY):
            return Origin(name)
        read = given
        if name in _OVERWRITING:
            read = [t for t in given if not any(t is w for w in written)]
        parents = distinct([self.values.of(tensor) for tensor in read])
        if not parents:
            return Origin(name)
        weighty = any(self._is_weight(t) for t in given)
        return Origin(
            name,
            parents,
            terms(name, args, kwargs, self.values.of),
            weighty or self._in_weighty_leaf() or _is_packed(args),
            self._joins(name, given),
        )

    def attend(
        self,
        function: Callable[..., Any],
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Attention is one operator; kernels may be compiled, or foreign."""
        if not self._in_blocks:
            return function(module, *args, **kwargs)
        given = [self.values.of(tensor) for _, tensor in tensors((args, kwargs))]
        origin = Origin("attention", distinct(given))
        with _disable_current_modes():
            output = function(module, *args, **kwargs)
        for _, tensor in tensors(output):
            self.values.made(tensor, origin, is_view=False)
        return output

    def begin(self, name: str, module: nn.Module, arguments: Any) -> None:
        """A module is called."""
        if not self._in_blocks:
            return
        call = ModuleCall(
            name,
            module,
            len(self.flow.states),
            self._numbers[name],
            self._running[-1] if self._running else None,
            len(self.flow.nodes),
        )
        self._numbers[name] += 1
        self._running.append(call)
        self.flow.calls.append(call)
        self._see(call, "input", arguments)

    def end(self, module: nn.Module, output: Any) -> None:
        """A module returns; what no operator made stems from all that it was given."""
        if not self._running or self._running[-1].module is not module:
            return
        call = self._running[-1]
        if call.given:
            self._opaque(call, output)
        self._see(call, "output", output)
        call.last = len(self.flow.nodes)
        self._running.pop()

    def boundary(self, tensor: Tensor) -> None:
        """The stream passes from one block to the next."""
        if not self.flow.states:
            self._shape = tensor.shape
            self.values.made(tensor, Origin(""), is_view=True)
        self.flow.states.append(self.values.of(tensor))
        self._numbers.clear()

    def _see(
        self, call: ModuleCall, side: Literal["input", "output"], structure: Any
    ) -> None:
        """Note which values a module is given, or gives."""
        seen = call.given if side == "input" else call.returned
        for place, tensor in tensors(structure):
            node = self.values.of(tensor) if tensor.is_floating_point() else None
            if node is None:
                continue
            seen[place] = node
            if tensor.numel() == self._shape.numel():
                site = Site(call.name, side, place, call.number)
                self.flow.sites[call.block, node].append(site)

    def _opaque(self, call: ModuleCall, output: Any) -> None:
        """Code that no operator shows, such as a kernel of another library."""
        origin = Origin("opaque", distinct([*call.given.values()]))
        for _, tensor in tensors(output):
            if tensor.is_floating_point() and self.values.of(tensor) is None:
                self.values.made(tensor, origin, is_view=True)

    def _append(self, tensor: Tensor, origin: Origin) -> int:
        """A new node; its numbers are kept if they may be a state."""
        keep = self._keeps and tensor.numel() == self._shape.numel()
        self.flow.nodes.append(
            Node(
                origin.op,
                origin.parents,
                self._running[-1] if self._running else None,
                origin.weighty,
                origin.joined,
                tensor.shape,
                tensor.dtype,
                origin.terms,
                tensor.detach().clone() if keep else None,
            )
        )
        return len(self.flow.nodes) - 1

    def _joins(self, name: str, given: Sequence[Tensor]) -> bool:
        """Whether a tensor takes part that has numbers for each token of its own."""
        return name in ("add", "mul") and any(
            tensor.is_floating_point()
            and tensor.dim() > 2
            and tensor.shape[:2] == self._shape[:2]
            and self.values.of(tensor) is None
            and not self._is_weight(tensor)
            and bool((tensor != tensor.flatten()[0]).any())
            for tensor in given
        )

    def _is_weight(self, tensor: Tensor) -> bool:
        """Whether a tensor is a matrix of weights, or made of weights alone."""
        return is_matrix(tensor) and (
            memory(tensor) in self._weights or tensor in self._derived
        )

    def _in_weighty_leaf(self) -> bool:
        """Whether a module without modules, but with matrices, runs."""
        return bool(self._running) and is_weighty_leaf(self._running[-1].module)


def is_matrix(tensor: Tensor) -> bool:
    """Whether more than one axis of a tensor is longer than 1."""
    return sum(size > 1 for size in tensor.shape) > 1


def is_weighty_leaf(module: nn.Module) -> bool:
    """Whether a module holds matrices of its own and no other modules."""
    own = (*module._parameters.values(), *module._buffers.values())
    return not module._modules and any(t is not None and is_matrix(t) for t in own)


def _is_packed(args: Sequence[Any]) -> bool:
    """Whether an operator is given weights in a form that is no tensor."""
    return any(isinstance(item, torch.ScriptObject) for item in args)


def _name(func: Any, args: Sequence[Any]) -> str:
    """An operator's name; a negative power of one half is what `rsqrt` gives."""
    name: str = func._schema.name.split("::")[1]
    return "rsqrt" if name == "pow" and tuple(args[1:]) == (-0.5,) else name


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors that an operator writes to."""
    found: list[Tensor] = []
    for index, argument in enumerate(func._schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        value = args[index] if index < len(args) else kwargs.get(argument.name)
        found += [tensor for _, tensor in tensors(value)]
    return found


@contextmanager
def _calls(recorder: Recorder, model: nn.Module) -> Iterator[None]:
    """While open, the recorder is told of this thread's module calls."""
    thread, handles = threading.get_ident(), []

    def begin(name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            if threading.get_ident() == thread:
                recorder.begin(name, module, (args, kwargs))

        return hook

    def end(module: nn.Module, args: Any, output: Any) -> None:
        if threading.get_ident() == thread:
            recorder.end(module, output)

    try:
        for name, module in model.named_modules():
            if name:
                before = module.register_forward_pre_hook(begin(name), with_kwargs=True)
                handles += [before, module.register_forward_hook(end)]
        yield
    finally:
        for handle in handles:
            handle.remove()
