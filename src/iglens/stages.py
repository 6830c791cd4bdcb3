"""Where the time goes: named stages that the library passes through while it works.

Library code says which stage it is in (`with stage("forward")`), and asks for no clock
to be handed in. Whoever wants to know starts a `Clock`; without one a stage does
nothing.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

OTHER = "other"
"""The stage of everything that says of no stage."""


class Clock:
    """Seconds per stage since it was made.

    A stage inside another one counts for itself alone, so that all of them add up to
    the time that has passed. Of other threads nothing is counted.

    Example:
        >>> clock = Clock()
        >>> with clock.on("load"), stage("tokenise"):
        ...     pass
        >>> sorted(clock.seconds)
        ['load', 'other', 'tokenise']
    """

    def __init__(self) -> None:
        """Start, in no stage."""
        self._seconds: dict[str, float] = {OTHER: 0.0}
        self._since = time.perf_counter()
        self._name = OTHER

    @contextmanager
    def on(self, name: str = OTHER) -> Iterator[None]:
        """While open, this is the stage, and stages inside are counted here."""
        token = _CLOCK.set(self)
        outside = self._switch(name)
        try:
            yield
        finally:
            self._switch(outside)
            _CLOCK.reset(token)

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds per stage, in the order in which they began; "other" comes last."""
        self._switch(self._name)
        other = {OTHER: self._seconds[OTHER]}
        return {n: s for n, s in self._seconds.items() if n != OTHER} | other

    def _switch(self, name: str) -> str:
        """Count what has passed for the stage that ends here, and return its name."""
        _wait_for_devices()
        now, ended = time.perf_counter(), self._name
        self._seconds[ended] += now - self._since
        self._seconds.setdefault(name, 0.0)
        self._since, self._name = now, name
        return ended


_CLOCK: ContextVar[Clock | None] = ContextVar("iglens_clock", default=None)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """While open, time is counted for this stage, if somebody counts.

    Args:
        name: What is done, in a word.
    """
    clock = _CLOCK.get()
    if clock is None:
        yield
    else:
        with clock.on(name):
            yield


def _wait_for_devices() -> None:
    """Let a GPU finish what it was asked for: it belongs to the stage that asked."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
