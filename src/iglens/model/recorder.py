"""Watching a forward pass: every operator, module call and boundary between blocks."""

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from .boundaries import boundaries
from .dataflow import Flow, ModuleCall, Node, Terms
from .runner import Runner
from .stream import Stream
from .structure import tensors
from .sublayers import Site
from .terms import terms

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
        boundaries(stream, recorder.boundary),
        _calls(recorder, runner.model),
        recorder,
    ):
        runner(ids)
    return recorder.flow


class Recorder(TorchDispatchMode):
    """Follows what stems from `h_0` through operators, views and writes in place."""

    def __init__(self, model: nn.Module, n_layers: int, values: bool) -> None:
        """Take the model's weights; `values` as for `record_flow`."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.flow = Flow()
        self.shape: torch.Size | None = None
        self._values, self._n_layers = values, n_layers
        self._running: list[ModuleCall] = []
        self._numbers: dict[str, int] = defaultdict(int)
        self._time = 0
        self._known = WeakTensorKeyDictionary()  # tensor -> (time, node or None)
        self._writes: dict[int, tuple[int, int | None, tuple[Any, ...]]] = {}
        self._weights = {_memory(p) for p in model.parameters() if is_matrix(p)}
        self._derived = WeakTensorKeyDictionary()  # tensors made of weights alone

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
        name = _name(func, args)
        given = [tensor for _, tensor in tensors((args, kwargs))]
        written = _written(func, args, kwargs)
        stems = self._stems(name, given, written)
        linear = terms(name, args, kwargs, self.node) if stems else None
        weights = any(self._is_weight(tensor) for tensor in given)
        weighty = weights or self._in_weighty_leaf() or _is_packed(args)
        joined = bool(stems) and self._joins(name, given)
        output = func(*args, **kwargs)
        self._time += 1
        made = [t for _, t in tensors(output) if not any(t is w for w in written)]
        for tensor in made:
            if not func.is_view:
                self._writes.pop(_memory(tensor), None)
            if weights and not stems:
                self._derived[tensor] = True
        alone = linear if len(made) + len(written) == 1 else None
        for tensor in made if stems else ():
            self._add(tensor, name, stems, alone, weighty, joined)
        for tensor in written:
            self._write(tensor, name, stems, alone, weighty, joined)
        return output

    @property
    def _in_blocks(self) -> bool:
        """Whether `h_0` was passed, and the last state was not."""
        return 0 < len(self.flow.states) <= self._n_layers

    def node(self, tensor: Tensor) -> int | None:
        """The value that a tensor holds now, None if it does not stem from `h_0`."""
        time, node = self._known.get(tensor, (-1, None))
        write = self._writes.get(_memory(tensor))
        if write is None or write[0] <= time:
            return node
        _, last, geometry = write
        if geometry == _geometry(tensor):
            node = last
        else:
            both = [n for n in (node, last) if n is not None]
            node = self._append(tensor, "", both) if both else None
        self._known[tensor] = (self._time, node)
        return node

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
        if call.given and len(self.flow.nodes) == call.first:
            self._opaque(call, output)
        self._see(call, "output", output)
        call.last = len(self.flow.nodes)
        self._running.pop()

    def boundary(self, tensor: Tensor) -> None:
        """The stream passes from one block to the next."""
        if self.shape is None:
            self.shape = tensor.shape
            self._add(tensor, "", [])
        self.flow.states.append(self.node(tensor))
        self._numbers.clear()

    def _see(self, call: ModuleCall, side: Any, structure: Any) -> None:
        """Note which values a module is given, or gives."""
        seen = call.given if side == "input" else call.returned
        for place, tensor in tensors(structure):
            node = self.node(tensor) if tensor.is_floating_point() else None
            if node is None:
                continue
            seen[place] = node
            if self._is_as_large_as_the_stream(tensor):
                site = Site(call.name, side, place, call.number)
                self.flow.sites[call.block, node].append(site)

    def _opaque(self, call: ModuleCall, output: Any) -> None:
        """Code that no operator shows, such as a kernel of another library."""
        for _, tensor in tensors(output):
            if tensor.is_floating_point() and self.node(tensor) is None:
                parents = list(dict.fromkeys(call.given.values()))
                self._add(tensor, "opaque", parents)

    def _stems(
        self, name: str, given: Sequence[Tensor], written: Sequence[Tensor]
    ) -> list[int]:
        """The values that an operator reads."""
        if any(part in name for part in _SHAPE_ONLY):
            return []
        if name in _OVERWRITING:
            given = [t for t in given if not any(t is w for w in written)]
        nodes = (self.node(tensor) for tensor in given)
        return list(dict.fromkeys(node for node in nodes if node is not None))

    def _add(
        self,
        tensor: Tensor,
        name: str,
        parents: Sequence[int],
        linear: Terms | None = None,
        weighty: bool = False,
        joined: bool = False,
    ) -> int:
        """A tensor holds a new value."""
        node = self._append(tensor, name, parents, linear, weighty, joined)
        self._known[tensor] = (self._time, node)
        return node

    def _write(
        self,
        tensor: Tensor,
        name: str,
        parents: Sequence[int],
        linear: Terms | None = None,
        weighty: bool = False,
        joined: bool = False,
    ) -> None:
        """A tensor was written to; views of its memory may show earlier writes."""
        memory, geometry = _memory(tensor), _geometry(tensor)
        _, earlier, where = self._writes.get(memory, (0, None, geometry))
        if earlier is not None and where != geometry:
            parents = list(dict.fromkeys([*parents, earlier]))
        if parents:
            node: int | None = self._add(tensor, name, parents, linear, weighty, joined)
        else:
            node = None
            self._known[tensor] = (self._time, None)
        self._writes[memory] = (self._time, node, geometry)

    def _append(
        self,
        tensor: Tensor,
        name: str,
        parents: Sequence[int],
        linear: Terms | None = None,
        weighty: bool = False,
        joined: bool = False,
    ) -> int:
        """A new node; its numbers are kept if they may be a state."""
        keep = self._values and self._is_as_large_as_the_stream(tensor)
        self.flow.nodes.append(
            Node(
                name,
                tuple(parents),
                self._running[-1] if self._running else None,
                weighty,
                joined,
                tensor.shape,
                tensor.dtype,
                linear,
                tensor.detach().clone() if keep else None,
            )
        )
        return len(self.flow.nodes) - 1

    def _is_weight(self, tensor: Tensor) -> bool:
        """Whether a tensor is a matrix of weights, or made of weights alone."""
        return is_matrix(tensor) and (
            _memory(tensor) in self._weights or tensor in self._derived
        )

    def _is_as_large_as_the_stream(self, tensor: Tensor) -> bool:
        """Whether a tensor may hold a state, be it in another shape."""
        return self.shape is not None and tensor.numel() == self.shape.numel()

    def _joins(self, name: str, given: Sequence[Tensor]) -> bool:
        """Whether a tensor takes part that has numbers for each token of its own."""
        if name not in ("add", "mul") or self.shape is None:
            return False
        return any(
            tensor.is_floating_point()
            and tensor.shape[:2] == self.shape[:2]
            and tensor.dim() > 2
            and self.node(tensor) is None
            and not self._is_weight(tensor)
            and bool((tensor != tensor.flatten()[0]).any())
            for tensor in given
        )

    def _in_weighty_leaf(self) -> bool:
        """Whether a module without modules, but with matrices, runs."""
        module = self._running[-1].module if self._running else None
        return module is not None and is_weighty_leaf(module)


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


def _memory(tensor: Tensor) -> int:
    """What tensors have in common that share their numbers."""
    try:
        return tensor.untyped_storage()._cdata
    except (RuntimeError, NotImplementedError):
        return id(tensor)


def _geometry(tensor: Tensor) -> tuple[Any, ...]:
    """Which numbers of its memory a tensor shows."""
    return tensor.storage_offset(), tuple(tensor.shape), tensor.stride()


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
