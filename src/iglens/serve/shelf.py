"""The results that are remembered: the newest, up to a number and a size."""

import threading
from collections import OrderedDict
from dataclasses import dataclass, fields, is_dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from ..records import Attribution
from .limits import Limits
from .permalink import link_code
from .question import Question


@dataclass(frozen=True, eq=False)
class Kept:
    """A result with its question.

    Attributes:
        asked: The question as it was asked.
        again: The same in token ids.
        text: The prompt as text.
        result: The result.
    """

    asked: Question
    again: Question
    text: str
    result: Attribution

    @property
    def code(self) -> str:
        """What a link carries after its `#`."""
        return link_code(self.again)

    @property
    def id(self) -> str:
        """A name that the same question has again, also after a restart."""
        return sha256(self.code.encode()).hexdigest()[:16]


class Shelf:
    """Results by their names, the one that was made last at the end."""

    def __init__(self, limits: Limits) -> None:
        """Start empty."""
        self._limits, self._lock = limits, threading.Lock()
        self._kept: OrderedDict[str, Kept] = OrderedDict()

    def put(self, kept: Kept) -> str:
        """Remember a result, and forget the oldest where there are too many."""
        with self._lock:
            name = kept.id
            self._kept.pop(name, None)
            self._kept[name] = kept
            while len(self._kept) > 1 and self._too_much():
                self._kept.popitem(last=False)
        return name

    def get(self, name: str) -> Kept | None:
        """The result of that name, if it is still there."""
        with self._lock:
            return self._kept.get(name)

    def newest(self) -> list[tuple[str, Kept]]:
        """All of them, the newest first."""
        with self._lock:
            return list(self._kept.items())[::-1]

    def clear(self) -> int:
        """Forget all; says how many there were."""
        with self._lock:
            number = len(self._kept)
            self._kept.clear()
        return number

    def _too_much(self) -> bool:
        """Whether something must go."""
        size = sum(size_of(kept.result) for kept in self._kept.values())
        return len(self._kept) > self._limits.kept or size > self._limits.kept_bytes


def size_of(value: Any) -> int:
    """Bytes of all arrays in a record."""
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if is_dataclass(value):
        return sum(size_of(getattr(value, field.name)) for field in fields(value))
    return 0
