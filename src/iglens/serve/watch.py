"""Stopping a computation from outside, and saying how far it is.

Before every product, norm and exponential of torch the thread looks whether it is still
wanted, so that a cancelled question ends within one of them: between tokens, layers and
blocks of the vocabulary alike. The model knows nothing of it.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from torch import nn
from torch.overrides import TorchFunctionMode

Reason = Literal["cancelled", "timeout"]

Progress = Callable[[str, int | None, int | None], None]
"""Takes the stage, what of it is done, and of how much."""

_WORK = frozenset(
    {
        *("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "conv1d"),
        *("scaled_dot_product_attention", "embedding", "layer_norm", "rms_norm"),
        *("softmax", "log_softmax", "logsumexp", "exp", "exp_", "rsqrt"),
    }
)
"""Operations that a computation can be broken off at.

What puts a model back as it was, in `finally`, copies and switches but computes none of
these: it is never broken off halfway.
"""


class StoppedError(BaseException):
    """The computation is not wanted any more.

    Like `KeyboardInterrupt` no `Exception`, so that nothing on the way takes it for a
    model that does not run and goes on without.

    Attributes:
        reason: Why.
    """

    def __init__(self, reason: Reason) -> None:
        """Take the reason."""
        super().__init__(reason)
        self.reason: Reason = reason


class Watch:
    """What somebody outside knows of a computation, and may do to it."""

    def __init__(self, seconds: float, progress: Progress) -> None:
        """Start with nothing done.

        Args:
            seconds: Time from `begin` after which it is stopped.
            progress: Is told how far it is.
        """
        self._seconds, self._progress = seconds, progress
        self._cancelled = threading.Event()
        self._until = float("inf")

    def begin(self) -> None:
        """Let the time run."""
        self._until = time.monotonic() + self._seconds

    def cancel(self) -> None:
        """Have it stopped as soon as it looks."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether it is to be stopped."""
        return self._cancelled.is_set()

    def check(self) -> None:
        """Go on, or not.

        Raises:
            StoppedError: If it was cancelled or took too long.
        """
        if self._cancelled.is_set():
            raise StoppedError("cancelled")
        if time.monotonic() > self._until:
            raise StoppedError("timeout")

    def tell(self, stage: str, done: int | None = None, of: int | None = None) -> None:
        """Say how far it is, unless it is to stop."""
        self.check()
        self._progress(stage, done, of)


class Stoppable(TorchFunctionMode):
    """While active, this thread's computations look at the watch first."""

    def __init__(self, watch: Watch) -> None:
        """Take the watch."""
        super().__init__()
        self._watch = watch

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run one operation, if it is still wanted."""
        if getattr(func, "__name__", "") in _WORK:
            self._watch.check()
        return func(*args, **(kwargs or {}))


@contextmanager
def counted_passes(model: nn.Module, tell: Callable[[int], None]) -> Iterator[None]:
    """While open, `tell` hears of every pass of the model as it begins, from 1."""
    thread, passes = threading.get_ident(), 0

    def begin(module: nn.Module, args: Any) -> None:
        nonlocal passes
        if threading.get_ident() == thread:
            passes += 1
            tell(passes)

    handle = model.register_forward_pre_hook(begin)
    try:
        yield
    finally:
        handle.remove()
