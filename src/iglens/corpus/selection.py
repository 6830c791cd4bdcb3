"""Which rows of an input are taken, in which order, and which shard each is in.

Shards are planned from the input alone, so that whoever works on one, whenever and
wherever, finds the same rows in it.
"""

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from ..errors import ArgumentError
from .items import Broken, Columns, Item
from .read import AbstractInput

SHARD_ROWS = 256
"""Rows of the input per shard: what is lost, at most, when a run is killed."""


@dataclass(frozen=True)
class Selection:
    """Which rows are taken.

    Attributes:
        limit: So many at most; None for all.
        shuffle: Whether to take them in a random order (lines are then held in memory).
        seed: What that order is drawn from.
        shard_rows: Rows per shard.

    Raises:
        ArgumentError: If a number is not above 0.
    """

    limit: int | None = None
    shuffle: bool = False
    seed: int = 0
    shard_rows: int = SHARD_ROWS

    def __post_init__(self) -> None:
        """Refuse numbers of nothing."""
        for name in ("limit", "shard_rows"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ArgumentError(f"`{name}` is {number}; it must be at least 1.")


@dataclass(frozen=True)
class Survey:
    """What one look at every line of an input finds.

    Attributes:
        n_lines: How many there are.
        types: Type of every column: "string", "bool", "int" or "float".
    """

    n_lines: int
    types: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, source: AbstractInput) -> "Survey":
        """Look at every line.

        Raises:
            ArgumentError: If there are none.
        """
        n_lines = 0
        types: dict[str, str | None] = {}
        for line in source.lines():
            n_lines += 1
            if not isinstance(line, Broken):
                for name, value in line.items():
                    types[str(name)] = _wider(types.get(str(name)), value)
        if not types:
            raise ArgumentError(f"{source.name} holds no rows.")
        return cls(n_lines, {name: kind or "string" for name, kind in types.items()})


def _wider(known: str | None, value: Any) -> str | None:
    """The type that holds a value besides what was seen; None for nothing yet."""
    if value is None:
        return known
    names = {bool: "bool", int: "int", float: "float"}
    kind = names.get(type(value), "string")
    if kind == "int" and not -(2**63) <= value < 2**63:
        kind = "string"
    if known in (None, kind):
        return kind
    return "float" if {known, kind} == {"int", "float"} else "string"


@dataclass(frozen=True)
class Shards:
    """An input, cut up.

    Attributes:
        source: Where lines come from.
        n_lines: How many there are.
        columns: Which columns hold what.
        selection: Which rows are taken.
    """

    source: AbstractInput
    n_lines: int
    columns: Columns
    selection: Selection

    @property
    def n_rows(self) -> int:
        """Rows that are taken."""
        limit = self.selection.limit
        return self.n_lines if limit is None else min(limit, self.n_lines)

    def __len__(self) -> int:
        """Number of shards."""
        return -(-self.n_rows // self.selection.shard_rows)

    def size(self, shard: int) -> int:
        """Rows of one shard."""
        step = self.selection.shard_rows
        return min(step, self.n_rows - shard * step)

    def items(self, wanted: Collection[int]) -> Iterator[tuple[int, list[Item]]]:
        """Number and rows of the wanted shards, ascending."""
        if not wanted:
            return
        step, last = self.selection.shard_rows, max(wanted)
        rows = islice(self._rows(), min(self.n_rows, (last + 1) * step))
        for shard in range(last + 1):
            lines = islice(rows, step)
            if shard in wanted:
                yield shard, [Item.of(*row, self.columns) for row in lines]
            else:
                next(islice(lines, step, step), None)  # let them pass

    def _rows(self) -> Iterator[tuple[int, Any]]:
        """Place in the input and line of every row, in the order they are taken."""
        numbered = enumerate(self.source.lines())
        if not self.selection.shuffle:
            yield from numbered
            return
        order = random.Random(self.selection.seed).sample(
            range(self.n_lines), self.n_rows
        )
        taken = set(order)
        lines = {index: line for index, line in numbered if index in taken}
        for index in order:
            yield index, lines.pop(index)
