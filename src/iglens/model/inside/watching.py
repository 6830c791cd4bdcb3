"""Watching one forward pass: what modules take and give, and what is attended to."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from ..attention import AttentionFunction, intercepted_attention
from ..boundaries import boundaries
from ..stream import Stream
from ..structure import tensors
from .attended import AttentionCall, taken_call
from .mixtures import MixtureCall, taken_mixture
from .value_source import Values


@dataclass(eq=False)
class Seen:
    """What one module took and gave in one block, at the wanted places of each text.

    Attributes:
        taken: What it took.
        given: What it gave.
        calls: How often it was called.
        reason: Why its tensors are not one vector for each token.
        attention: Calls of attention functions since the one before.
        mixture: What it was given, if it is a mixture of experts.
    """

    taken: list[Tensor] = field(default_factory=list)
    given: list[Tensor] = field(default_factory=list)
    calls: int = 0
    reason: str | None = None
    attention: list[AttentionCall | str] = field(default_factory=list)
    mixture: MixtureCall | str = "it was not called"

    def at(self, text: int, name: str) -> tuple[Tensor, Tensor] | str:
        """What was taken and given for one text, or why that is not known."""
        if self.calls != 1:
            return f"{name} was called {self.calls} times"
        if self.reason is not None:
            return self.reason
        if not (self.taken and self.given):
            return f"{name} does not begin and end within its block"
        return self.taken[text], self.given[text]


@dataclass(eq=False)
class Watched:
    """What one forward pass left.

    Attributes:
        places: Wanted places of every text.
        modules: Names of the watched modules, by layer number.
        readers: Those of them that take what heads have read, with the name of the
            module that attends.
        mixtures: Those of them that add up what experts give.
        seen: What was seen, by layer number and name.
    """

    places: Sequence[Int[Tensor, " _"]]
    modules: Mapping[int, Sequence[str]]
    readers: Mapping[tuple[int, str], str]
    mixtures: frozenset[str]
    seen: dict[tuple[int, str], Seen] = field(default_factory=lambda: defaultdict(Seen))


@contextmanager
def watching(model: nn.Module, stream: Stream, watched: Watched) -> Iterator[None]:
    """While open, one forward pass of the texts is watched; nothing of it changes."""
    watch = _Watch(model, stream, watched)
    with ExitStack() as stack:
        if watched.readers:
            stack.enter_context(intercepted_attention(watch.attend))
        stack.enter_context(boundaries(stream, watch.boundary))
        handles: list[Any] = []
        stack.callback(lambda: [handle.remove() for handle in handles])
        for name, module in _below(model, watched.readers.values()).items():
            handles.append(module.register_forward_hook(watch.value_hook(name)))
        names = (name for names in watched.modules.values() for name in names)
        for name in dict.fromkeys(names):
            module = model.get_submodule(name)
            begin, end = watch.hooks(name)
            handles.append(module.register_forward_pre_hook(begin, with_kwargs=True))
            handles.append(module.register_forward_hook(end))
        yield


def _below(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    """All modules inside some modules, by name, each once."""
    return {
        f"{name}.{inner}": module
        for name in dict.fromkeys(names)
        for inner, module in model.get_submodule(name).named_modules()
        if inner
    }


class _Watch:
    """The hooks of one pass."""

    def __init__(self, model: nn.Module, stream: Stream, watched: Watched) -> None:
        """Take the model, where its stream runs, and what is wanted."""
        self._model, self._stream, self._watched = model, stream, watched
        self._layer, self._shape = 0, torch.Size()
        self._attended: list[AttentionCall | str] = []
        self._values = Values()

    def boundary(self, state: Tensor) -> None:
        """The next block begins."""
        self._layer += 1
        self._shape = state.shape
        self._attended, self._values = [], Values()

    @property
    def _reads(self) -> bool:
        """Whether what is attended to in this block is wanted."""
        return any(layer == self._layer for layer, _ in self._watched.readers)

    def hooks(self, name: str) -> tuple[Callable[..., None], Callable[..., None]]:
        """What runs before and after the module of that name."""
        watched = self._watched
        layers = {layer for layer, names in watched.modules.items() if name in names}

        def begin(module: nn.Module, args: Any, kwargs: Any) -> None:
            if self._layer not in layers:
                return
            seen = watched.seen[self._layer, name]
            seen.calls += 1
            if name in watched.mixtures:
                given = (args, kwargs)
                seen.mixture = taken_mixture(self._model, module, given, self._rows)
                return
            self._keep(seen, seen.taken, (args, kwargs))
            if (self._layer, name) in watched.readers:
                seen.attention, self._attended = self._attended, []

        def end(module: nn.Module, args: Any, output: Any) -> None:
            if self._layer in layers:
                seen = watched.seen[self._layer, name]
                self._keep(seen, seen.given, output)

        return begin, end

    def value_hook(self, name: str) -> Callable[..., None]:
        """What runs after a module of an attention."""

        def end(module: nn.Module, args: Any, output: Any) -> None:
            if self._reads:
                self._values.add(module, args, output)

        return end

    def attend(
        self,
        function: AttentionFunction,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Let the model attend, and keep what of it is wanted."""
        output = function(module, *args, **kwargs)
        if self._reads:
            places = self._watched.places
            lengths = [int(wanted[-1]) + 1 for wanted in places]
            call = taken_call(function, module, args, kwargs, output, places, lengths)
            value = args[2] if len(args) > 2 else kwargs.get("value")
            if not isinstance(call, str) and isinstance(value, Tensor):
                call.source = self._values.source(value)
            self._attended.append(call)
            self._values = Values()
        return output

    def _keep(self, seen: Seen, to: list[Tensor], structure: Any) -> None:
        """Keep the wanted places of a module's one tensor, or why that is not one."""
        floats = [t for _, t in tensors(structure) if t.is_floating_point()]
        if len(floats) != 1:
            seen.reason = f"its writer or norm takes or gives {len(floats)} tensors"
            return
        found = self._rows(floats[0])
        if isinstance(found, str):
            seen.reason = found
        else:
            to[:] = found

    def _rows(self, tensor: Tensor) -> list[Tensor] | str:
        """The wanted places of a tensor with numbers for each token, per text."""
        shape = self._shape
        if tensor.numel() * shape[-1] != shape.numel() * tensor.shape[-1]:
            return "a module of it takes or gives other than numbers for each token"
        floats = tensor if tensor.is_floating_point() else tensor.double()
        rows = self._stream.to_rows(floats.reshape(*shape[:-1], tensor.shape[-1]))
        return [
            rows[text, wanted.to(rows.device)].to(tensor.dtype, copy=True)
            for text, wanted in enumerate(self._watched.places)
        ]
