"""What is said besides the data: where the time went, and what libraries print."""

import logging
import os
from contextlib import AbstractContextManager, nullcontext

import typer

from ..stages import OTHER, Clock

_TALKATIVE = ("accelerate", "bitsandbytes", "torchao", "torch.utils._pytree")
"""Loggers of optional libraries, and of what they use."""


class Profile:
    """Seconds per stage, told on stderr at the end if asked for."""

    def __init__(self, *, enabled: bool) -> None:
        """Start with no stage."""
        self._clock = Clock() if enabled else None

    def stage(self, name: str = OTHER) -> AbstractContextManager[None]:
        """Time what happens inside; what the library tells apart counts apart."""
        return nullcontext() if self._clock is None else self._clock.on(name)

    def report(self) -> None:
        """Say where the time went; the stages add up to the total."""
        if self._clock is None:
            return
        seconds = self._clock.seconds
        total = sum(seconds.values())
        for name, each in {**seconds, "total": total}.items():
            typer.echo(f"{name:>8} {each:8.2f} s {each / total:6.1%}", err=True)


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
