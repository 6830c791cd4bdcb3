"""Which value a tensor holds now: models work in place and through views.

A value is known by a number. After a write, every tensor that shares the memory stands
for another value: the one that was written if it shows the same numbers, else one that
is joined from what it held and what was written.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from .dataflow import Terms


@dataclass(frozen=True)
class Origin:
    """Where a value comes from; fields as in `Node`."""

    op: str
    parents: tuple[int, ...] = ()
    terms: Terms | None = None
    weighty: bool = False
    joined: bool = False


class Values:
    """The numbers of the values that tensors hold."""

    def __init__(self, number: Callable[[Tensor, Origin], int]) -> None:
        """Take what gives a new value its number."""
        self._number = number
        self._time = 0
        self._known = WeakTensorKeyDictionary()  # tensor -> (time, value or None)
        self._writes: dict[int, tuple[int, int | None, tuple[Any, ...]]] = {}

    def of(self, tensor: Tensor) -> int | None:
        """The value that a tensor holds now, None if none was ever noted."""
        time, value = self._known.get(tensor, (-1, None))
        write = self._writes.get(memory(tensor))
        if write is None or write[0] <= time:
            return value
        _, last, geometry = write
        if geometry == _geometry(tensor):
            value = last
        elif both := tuple(v for v in (value, last) if v is not None):
            value = self._number(tensor, Origin("", both))
        self._known[tensor] = (self._time, value)
        return value

    def made(self, tensor: Tensor, origin: Origin | None, *, is_view: bool) -> None:
        """An operator gave a tensor; None for one that holds no value to note."""
        self._time += 1
        if not is_view:
            self._writes.pop(memory(tensor), None)
        if origin is not None:
            self._known[tensor] = (self._time, self._number(tensor, origin))

    def written(self, tensor: Tensor, origin: Origin) -> None:
        """An operator wrote to a tensor; without parents it holds no value any more.

        Other views of its memory may hold what was written to them before.
        """
        self._time += 1
        where, geometry = memory(tensor), _geometry(tensor)
        _, earlier, shown = self._writes.get(where, (0, None, geometry))
        if earlier is not None and shown != geometry:
            parents = tuple(dict.fromkeys((*origin.parents, earlier)))
            origin = replace(origin, parents=parents)
        value = self._number(tensor, origin) if origin.parents else None
        self._known[tensor] = (self._time, value)
        self._writes[where] = (self._time, value, geometry)


def memory(tensor: Tensor) -> int:
    """What tensors have in common that share their numbers."""
    try:
        return tensor.untyped_storage()._cdata
    except (RuntimeError, NotImplementedError):
        return id(tensor)


def _geometry(tensor: Tensor) -> tuple[Any, ...]:
    """Which numbers of its memory a tensor shows."""
    return tensor.storage_offset(), tuple(tensor.shape), tensor.stride()


def distinct(values: Sequence[int | None]) -> tuple[int, ...]:
    """The values there are, each once."""
    return tuple(dict.fromkeys(value for value in values if value is not None))
