"""Which rows belong together: the values of a column, or ranges of its numbers."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from ..errors import ArgumentError
from ..report.visible import visible
from .store import Store

if TYPE_CHECKING:
    import pyarrow

MOST = 20
"""Values of a column that get statistics of their own."""

BINS = 4
"""Ranges of a column of more numbers than that, with as many rows in each."""

REST, NULL = "other values", "no value"
"""Names of the rows that have none of these."""

_HELD = 4096
"""Values that are counted at once: of more, the rarest are forgotten."""

_SAMPLED = 10_000
"""Numbers that ranges are made from: a random sample of the column."""


@dataclass(frozen=True)
class Slicing:
    """How one column sorts rows.

    Attributes:
        column: Its name.
        names: Name of each group; the last two are the rest and the empty cells.
        values: Values that have a group, as text; empty for ranges.
        edges: Bounds between ranges; empty for values.
    """

    column: str
    names: tuple[str, ...]
    values: tuple[str, ...]
    edges: tuple[float, ...] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kind of each group; see `Group`."""
        told = "bin" if self.edges else "value"
        return (*[told] * (len(self.names) - 2), "rest", "null")

    def groups(self, batch: "pyarrow.RecordBatch") -> Int[np.ndarray, " rows"]:
        """Number of the group that each row belongs to."""
        column = batch.column(self.column)
        rest, null = len(self.names) - 2, len(self.names) - 1
        if self.edges:
            numbers = _floats(column)
            found = np.searchsorted(self.edges, numbers, side="right")
            return np.where(np.isnan(numbers), null, found)
        known = {value: at for at, value in enumerate(self.values)}
        texts = _texts(column)
        return np.array([null if t is None else known.get(t, rest) for t in texts], int)


def check_columns(store: Store, columns: Sequence[str]) -> None:
    """Refuse columns that are not there, or that hold lists.

    Raises:
        ArgumentError: If there is such a one.
    """
    import pyarrow
    import pyarrow.parquet

    first = next(store.shards(), None)
    if first is None:
        return
    schema = pyarrow.parquet.read_schema(store.shard_path(first.number))
    usable = [f.name for f in schema if not pyarrow.types.is_nested(f.type)]
    for name in columns:
        if name in usable:
            continue
        why = "holds lists" if name in schema.names else "is not there"
        raise ArgumentError(
            f"`slice` {name!r}: this column {why}. Rows can be sliced by "
            f"{', '.join(visible(one) for one in usable)}."
        )


def slicings(store: Store, columns: Sequence[str]) -> list[Slicing]:
    """How each column sorts the rows of a run; one look at these columns.

    Raises:
        ArgumentError: If one is not there.
        ArtifactError: If a shard is damaged.
    """
    if not columns:
        return []
    check_columns(store, columns)
    looks = {name: _Look() for name in dict.fromkeys(columns)}
    for batch in store.batches([*looks]):
        for name, look in looks.items():
            look.add(batch.column(name))
    return [look.slicing(name) for name, look in looks.items()]


class _Look:
    """What was seen of a column."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._values: Counter[str] = Counter()
        self._numeric = False
        self._sample = np.zeros(0)
        self._priority = np.zeros(0)
        self._random = np.random.Generator(np.random.Philox(0))

    def add(self, column: "pyarrow.Array") -> None:
        """Look at some cells."""
        import pyarrow

        kind = column.type
        self._numeric = pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(
            kind
        )
        self._values.update(text for text in _texts(column) if text is not None)
        if len(self._values) > 2 * _HELD:
            self._forget()
        if self._numeric:
            self._draw(_floats(column))

    def _forget(self) -> None:
        """Lower all counts by the same, so that few values are left.

        A value in more than one of `_HELD` rows stays (Misra and Gries 1982).
        """
        cut = self._values.most_common(_HELD + 1)[-1][1]
        left = {value: n - cut for value, n in self._values.items() if n > cut}
        self._values = Counter(left)

    def _draw(self, numbers: Float[np.ndarray, " rows"]) -> None:
        """Keep a random sample of all numbers so far."""
        known = numbers[~np.isnan(numbers)]
        sample = np.concatenate([self._sample, known])
        priority = np.concatenate([self._priority, self._random.random(len(known))])
        kept = np.sort(np.argsort(priority, kind="stable")[:_SAMPLED])
        self._sample, self._priority = sample[kept], priority[kept]

    def slicing(self, column: str) -> Slicing:
        """What to make of it."""
        if self._numeric and len(self._values) > MOST:
            edges = np.quantile(
                self._sample, np.arange(1, BINS) / BINS, method="higher"
            )
            edges = np.unique(edges)
            return Slicing(
                column, (*_ranges(edges), REST, NULL), (), tuple(edges.tolist())
            )
        common = sorted(self._values.items(), key=lambda pair: (-pair[1], pair[0]))
        values = [value for value, _ in common[:MOST]]
        if self._numeric:
            values.sort(key=float)
        return Slicing(column, (*values, REST, NULL), tuple(values))


def _ranges(edges: Iterable[float]) -> list[str]:
    """Names of the ranges between some bounds."""
    told = [f"{edge:.4g}" for edge in edges]
    inner = [f"{a} to below {b}" for a, b in pairwise(told)]
    return [f"below {told[0]}", *inner, f"{told[-1]} and more"]


def _floats(column: "pyarrow.Array") -> Float[np.ndarray, " rows"]:
    """Numbers of a column; NaN where it is empty."""
    import pyarrow

    cast = column.cast(pyarrow.float64(), safe=False)
    return np.asarray(cast.to_numpy(zero_copy_only=False))


def _texts(column: "pyarrow.Array") -> list[str | None]:
    """Cells as text; None where they are empty, or no number."""
    return [_text(value) for value in column.to_pylist()]


def _text(value: Any) -> str | None:
    """A cell as text."""
    if value is None or value != value:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)
