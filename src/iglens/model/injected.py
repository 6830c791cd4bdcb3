"""The injected readout: the model's own forward with every block short-circuited.

Each vector becomes a one-token text; the last block gives the vector as its output.
Whatever comes after the blocks (norm, scale, projection, cap, casts) is then the
model's own code. While it runs, the blocks' `forward` and hooks are swapped out, under
a lock and put back in `finally`: calls of the same model from other threads would see
the short-circuit.
"""

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from .runner import Runner
from .stream import Stream

_LOCKS: "weakref.WeakKeyDictionary[nn.Module, threading.RLock]" = (
    weakref.WeakKeyDictionary()
)
_LOCKS_LOCK = threading.Lock()

_MUTED = ("_forward_hooks", "_forward_pre_hooks")


def model_lock(model: nn.Module) -> threading.RLock:
    """The lock under which a model's forward may be swapped."""
    with _LOCKS_LOCK:
        return _LOCKS.setdefault(model, threading.RLock())


class Injected:
    """Logits of residual states through the model's own tail."""

    def __init__(self, runner: Runner, stream: Stream) -> None:
        """Take the model and where its stream runs."""
        self.runner, self.stream = runner, stream

    def __call__(
        self, states: Float[Tensor, "points d_model"]
    ) -> Float[Tensor, "points vocab"]:
        """Logits the model would give with these as outputs of its last block."""
        template = self.stream.template
        vectors = states.to(device=template.device, dtype=template.dtype)
        with short_circuited(self.runner.model, self.stream, vectors):
            logits = self.runner(self.runner.dummies(len(states)))
        return logits[:, -1].to(states.device)


@contextmanager
def short_circuited(
    model: nn.Module, stream: Stream, vectors: Float[Tensor, "points d_model"]
) -> Iterator[None]:
    """While open, every block gives these vectors instead of running."""
    replacement = stream.from_vectors(vectors)
    modules = list(dict.fromkeys(stream.blocks))
    with model_lock(model):
        saved = [_take_out(module) for module in modules]
        try:
            for index, module in enumerate(stream.blocks):
                module.__dict__["forward"] = _stub(stream, index, replacement)
            yield
        finally:
            for module, state in zip(modules, saved, strict=True):
                _put_back(module, state)


def _stub(stream: Stream, index: int, replacement: Tensor) -> Callable[..., object]:
    """A forward that ignores its input; a clone, since models add in place."""

    def forward(*args: Any, **kwargs: Any) -> object:
        return stream.put(stream.outputs[index], replacement.clone())

    return forward


def _take_out(module: nn.Module) -> dict[str, Any]:
    """Remove what would run besides the forward, and remember it."""
    saved = {key: module.__dict__[key] for key in _MUTED}
    if "forward" in module.__dict__:
        saved["forward"] = module.__dict__["forward"]
    for key in _MUTED:
        module.__dict__[key] = OrderedDict()
    return saved


def _put_back(module: nn.Module, saved: dict[str, Any]) -> None:
    """Undo `_take_out`, and the stub."""
    module.__dict__.pop("forward", None)
    module.__dict__.update(saved)
