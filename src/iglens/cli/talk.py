"""What is said besides the data: where the time went, and what libraries print."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import typer

_TALKATIVE = ("accelerate", "bitsandbytes", "torchao", "torch.utils._pytree")
"""Loggers of optional libraries, and of what they use."""


class Profile:
    """Seconds per stage, told on stderr at the end if asked for."""

    def __init__(self, *, enabled: bool) -> None:
        """Start with no stage."""
        self._enabled = enabled
        self._seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] = time.perf_counter() - start

    def report(self) -> None:
        """Say where the time went."""
        if self._enabled:
            for name, seconds in self._seconds.items():
                typer.echo(f"{name:>8} {seconds:8.2f} s", err=True)


def quiet_libraries() -> None:
    """Keep Transformers' bars and hints off the terminal, unless the user asks.

    Set before Transformers is imported; a user's own setting wins. What is installed
    beside it is imported by it, and warns of kernels that this machine lacks.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for name in _TALKATIVE:
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.ERROR)
