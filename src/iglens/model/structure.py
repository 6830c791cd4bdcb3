"""Tensors inside the nested arguments and outputs of a module."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

Place = tuple[str | int, ...]
"""Where a tensor sits: keys and indices from the outside in; () is the whole."""


def tensors(structure: Any, place: Place = ()) -> Iterator[tuple[Place, Tensor]]:
    """Every tensor of a structure of tuples, lists and mappings, with its place."""
    if isinstance(structure, Tensor):
        yield place, structure
    elif isinstance(structure, Mapping):
        for key in structure:
            yield from tensors(structure[key], (*place, key))
    elif isinstance(structure, tuple | list):
        for index, item in enumerate(structure):
            yield from tensors(item, (*place, index))


def get(structure: Any, place: Place) -> Any:
    """What sits at a place."""
    for key in place:
        structure = structure[key]
    return structure


def put(structure: Any, place: Place, value: Any) -> Any:
    """A copy of the structure with another value at a place."""
    if not place:
        return value
    inner = put(structure[place[0]], place[1:], value)
    if isinstance(structure, tuple):
        index = int(place[0])
        items = (*structure[:index], inner, *structure[index + 1 :])
        fields = getattr(structure, "_fields", None)
        return items if fields is None else type(structure)(*items)
    changed = copy.copy(structure)
    changed[place[0]] = inner
    return changed
