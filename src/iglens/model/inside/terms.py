"""Operators that give a sum of multiples of what they are given.

They tell with which factor the residual stream enters a later state: 1 where updates
are added, something else where a multiplier stands.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .dataflow import Terms

_COPIES = {
    "_to_copy",
    "_unsafe_view",
    "alias",
    "clone",
    "contiguous",
    "copy",
    "detach",
    "lift_fresh",
    "reshape",
    "squeeze",
    "unsqueeze",
    "view",
}


def terms(
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    node: Callable[[Tensor], int | None],
) -> Terms | None:
    """What an operator gives, as a sum; None if it is none.

    Args:
        name: The operator's name, without namespace and overload.
        args: Its arguments.
        kwargs: Its keyword arguments.
        node: The node of a tensor, None if it does not stem from the stream.
    """
    name = name.rstrip("_") if name not in _COPIES else name
    if name == "copy":
        args = args[1:]
    if name in _COPIES and isinstance(args[0], Tensor):
        return _sum([(args[0], 1.0)], node)
    if name in ("add", "sub") and len(args) == 2:
        factor = float(kwargs.get("alpha", 1)) * (1 if name == "add" else -1)
        return _sum([(args[0], 1.0), (args[1], factor)], node)
    if name in ("mul", "div") and len(args) == 2 and not kwargs:
        return _multiple(name, args[0], args[1], node)
    if name == "neg":
        return _sum([(args[0], -1.0)], node)
    return None


def _sum(
    addends: list[tuple[Any, float]], node: Callable[[Tensor], int | None]
) -> Terms | None:
    """The addends that stem from the stream; they must have one shape."""
    found = [(a, f) for a, f in addends if isinstance(a, Tensor) and _has(a, node)]
    if len({tensor.shape for tensor, _ in found}) > 1:
        return None
    return tuple((_index(tensor, node), factor) for tensor, factor in found)


def _multiple(
    name: str, one: Any, other: Any, node: Callable[[Tensor], int | None]
) -> Terms | None:
    """A tensor times or by something that does not stem from the stream."""
    if name == "mul" and not (isinstance(one, Tensor) and _has(one, node)):
        one, other = other, one
    if not (isinstance(one, Tensor) and _has(one, node)):
        return None
    if isinstance(other, Tensor):
        if _has(other, node):
            return None
        number = float(other) if other.numel() == 1 else None
    else:
        number = float(other)
    if number is not None and name == "div":
        number = 1 / number if number else None
    return ((_index(one, node), number),)


def _has(tensor: Tensor, node: Callable[[Tensor], int | None]) -> bool:
    """Whether a tensor stems from the stream."""
    return node(tensor) is not None


def _index(tensor: Tensor, node: Callable[[Tensor], int | None]) -> int:
    """The node of a tensor that has one."""
    found = node(tensor)
    assert found is not None
    return found
