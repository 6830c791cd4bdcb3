"""Paired differences of two runs: the same tokens, read twice."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float

from ..errors import ArgumentError
from ..records.estimates import DEPTHS
from ..records.run_difference import PairedBy, PairGroup, RunDifference, Side
from .bootstrap import FEWEST, REPLICATES, Drawn, Totals, check_settings
from .columns import NEEDED, Rows
from .pairs import KEYS, Pairs, by_partitions, by_shards
from .steps import Common
from .store import Store
from .summary import LEVEL, SAID, Progress, same_prompts, segments_of, tell_nobody

if TYPE_CHECKING:
    import pyarrow

PairBy = Literal["auto", "content", "id"]
"""How to pair; "auto" takes the content, and the id if no content is in both."""

_AT_ONCE = 1024
"""Pairs that are looked at together."""

_JOINS: dict[str, Callable[[Store, Store, list[str], PairedBy], Iterator[Pairs]]] = {
    "shards": by_shards,
    "partitions": by_partitions,
}


def difference_of_runs(
    a: Store | str | Path,
    b: Store | str | Path,
    *,
    pair: str = "auto",
    level: float = LEVEL,
    bootstrap: int = REPLICATES,
    seed: int = 0,
    progress: Progress = tell_nobody,
) -> RunDifference:
    """What changed from one run to another, over the tokens that both explain.

    Args:
        a: The run that is taken away, or its folder.
        b: The run it is taken from.
        pair: "content" pairs rows of the same token ids and target, which needs one
            vocabulary; "id" those of the same id and distance from the end of the
            prompt, whatever they hold; "auto" takes the first if it pairs anything.
        level: Share of intervals that are to be right.
        bootstrap: Replicates.
        seed: What they are drawn from.
        progress: Told how far it is.

    Raises:
        ArtifactError: If a folder holds no run, or a shard is damaged.
        ArgumentError: If units differ, no row has a counterpart, or a number is out of
            range.
        OutputError: If there is no room to sort rows in.
    """
    check_settings(level, bootstrap, seed)
    if pair not in ("auto", "content", "id"):
        raise ArgumentError(f"`pair` is {pair!r}; known are auto, content, id.")
    stores = tuple(
        one if isinstance(one, Store) else Store.load(Path(one)) for one in (a, b)
    )
    _check_units(*stores)
    found = _Found(stores[0], stores[1], _steps(*stores), level, bootstrap, seed)
    for paired_by in _ways(stores, pair):
        found.read(paired_by, progress)
        if found.groups:
            return found.difference()
    raise ArgumentError(
        f"No token of {stores[0].path} has a counterpart in {stores[1].path}: they "
        f"were paired by {found.paired_by}, and nothing is in both."
    )


def _ways(stores: tuple[Store, ...], pair: str) -> list[PairedBy]:
    """How to pair, in the order to try."""
    if pair == "content":
        return ["content"]
    sizes = {store.settings["model"]["vocab_size"] for store in stores}
    return ["id"] if pair == "id" or len(sizes) > 1 else ["content", "id"]


def _check_units(a: Store, b: Store) -> None:
    """Refuse runs in different units."""
    units = [store.settings["reading"]["unit"] for store in (a, b)]
    if units[0] != units[1]:
        raise ArgumentError(
            f"{a.path} is in {units[0]}, {b.path} in {units[1]}: numbers of different "
            "units have no difference. Run one of them anew with the `--unit` of the "
            "other."
        )


def _steps(a: Store, b: Store) -> Common:
    """What credits of both are compared by.

    Raises:
        ArgumentError: If nothing was explained in one of them.
    """
    paths = [segments_of(store) for store in (a, b)]
    for store, path in zip((a, b), paths, strict=True):
        if not path:
            raise ArgumentError(f"No row of {store.path} could be explained.")
    layers = [int(store.settings["model"]["n_layers"]) for store in (a, b)]
    return Common.of(paths[0], paths[1], (layers[0], layers[1]))


@dataclass(frozen=True)
class _Places:
    """Where each number stands in a row of sums."""

    n_steps: int

    rows = 0
    judged, correct_a, correct_b, final_a, final_b = 1, 2, 3, 4, 5
    _first = 6

    def depth(self, at: int) -> tuple[int, int]:
        """Sum of shifts of a depth, and in how many pairs both have it."""
        return self._first + 2 * at, self._first + 2 * at + 1

    @property
    def counts(self) -> tuple[int, ...]:
        """Those that count pairs."""
        return self.rows, self.judged, *(self.depth(i)[1] for i in range(len(DEPTHS)))

    def credits(self, side: int) -> slice:
        """Credits of one side."""
        start = self._first + 2 * len(DEPTHS) + side * self.n_steps
        return slice(start, start + self.n_steps)

    @property
    def width(self) -> int:
        """How many there are."""
        return self.credits(1).stop


class _Found:
    """Pairs as they are found, and sums over them."""

    def __init__(
        self, a: Store, b: Store, steps: Common, level: float, n: int, seed: int
    ) -> None:
        """Nothing yet."""
        self._a, self._b, self._steps = a, b, steps
        self._level, self._n, self._seed = level, n, seed
        self._places = _Places(len(steps.labels))
        self.joined = "shards" if same_prompts(a, b) else "partitions"
        self._begin("content")

    def _begin(self, paired_by: PairedBy) -> None:
        """Forget what was found."""
        self.paired_by: PairedBy = paired_by
        self.groups: dict[str, Totals] = {}
        self._left_out: dict[str, int] = {}
        self._n_rows, self._n_pairs, self._other_units = [0, 0], 0, 0

    def read(self, paired_by: PairedBy, progress: Progress) -> None:
        """Find all pairs."""
        self._begin(paired_by)
        total = sum(s.n_rows for one in (self._a, self._b) for s in one.shards())
        columns = list(dict.fromkeys([*NEEDED, *KEYS[paired_by]]))
        for pairs in _JOINS[self.joined](self._a, self._b, columns, paired_by):
            self._n_rows[0] += pairs.n_a
            self._n_rows[1] += pairs.n_b
            self._n_pairs += pairs.a.num_rows
            for start in range(0, pairs.a.num_rows, _AT_ONCE):
                sides = (_batch(t, start) for t in (pairs.a, pairs.b))
                paths = (len(self._steps.a), len(self._steps.b))
                self._add(*(Rows.of(t, n) for t, n in zip(sides, paths, strict=True)))
            progress("Rows", sum(self._n_rows), total)

    def _add(self, a: Rows, b: Rows) -> None:
        """Add some pairs."""
        same = a.units == b.units
        self._other_units += int((~same).sum())
        finite = a.finite & b.finite
        drawn = Drawn.of(a.prompts, self._n, self._seed)
        numbers = self._numbers(a, b)
        for unit in dict.fromkeys(a.units[same].tolist()):
            own = same & (a.units == unit)
            if unit not in self.groups:
                at = self._places
                self.groups[unit] = Totals(at.width, self._n, at.counts)
                self._left_out[unit] = 0
            self._left_out[unit] += int((own & ~finite).sum())
            which = np.flatnonzero(own & finite)
            self.groups[unit].add(numbers[which], drawn, which)

    def _numbers(self, a: Rows, b: Rows) -> Float[np.ndarray, "pairs numbers"]:
        """What is summed of each pair."""
        at, steps = self._places, self._steps
        found = np.zeros((len(a.prompts), at.width))
        found[:, at.rows] = 1
        judged = np.isfinite(a.correct) & np.isfinite(b.correct)
        found[:, at.judged] = judged
        found[:, at.correct_a] = np.where(judged, a.correct, 0)
        found[:, at.correct_b] = np.where(judged, b.correct, 0)
        found[:, at.final_a], found[:, at.final_b] = a.levels[:, -1], b.levels[:, -1]
        shift = b.depths / steps.scale_b - a.depths / steps.scale_a
        for i in range(len(DEPTHS)):
            total, count = at.depth(i)
            known = np.isfinite(shift[:, i])
            found[:, total] = np.where(known, shift[:, i], 0)
            found[:, count] = known
        with np.errstate(invalid="ignore"):  # rows that are not finite are left out
            found[:, at.credits(0)] = a.credits @ steps.a
            found[:, at.credits(1)] = b.credits @ steps.b
        return found

    def difference(self) -> RunDifference:
        """The statistics."""
        stores, steps = (self._a, self._b), self._steps
        a, b = (
            Side(_said(store), n, n - self._n_pairs)
            for store, n in zip(stores, self._n_rows, strict=True)
        )
        groups = tuple(self._group(unit) for unit in self.groups)
        return RunDifference(
            a,
            b,
            self.paired_by,
            self.joined,
            steps.by,
            steps.labels,
            steps.ends,
            groups,
            self._level,
            self._n,
            self._seed,
            tuple(self._notes(groups)),
        )

    def _group(self, unit: str) -> PairGroup:
        """The statistics of one unit."""
        at, totals, level = self._places, self.groups[unit], self._level
        a, b = (totals.ratio(at.credits(side), at.rows) for side in (0, 1))
        final_a = totals.ratio(at.final_a, at.rows)
        final_b = totals.ratio(at.final_b, at.rows)
        correct_a = totals.ratio(at.correct_a, at.judged)
        correct_b = totals.ratio(at.correct_b, at.judged)
        shifts = {name: at.depth(i) for i, name in enumerate(DEPTHS)}
        return PairGroup(
            unit,
            totals.n_prompts,
            int(totals.sums[at.rows]),
            self._left_out[unit],
            a.band(level),
            b.band(level),
            (b - a).band(level),
            final_a.estimate(level),
            final_b.estimate(level),
            (final_b - final_a).estimate(level),
            {n: totals.ratio(*where).estimate(level) for n, where in shifts.items()},
            {n: int(totals.sums[count]) for n, (_, count) in shifts.items()},
            (correct_b - correct_a).estimate(level),
            int(totals.sums[at.judged]),
        )

    def _notes(self, groups: tuple[PairGroup, ...]) -> Iterator[str]:
        """What else differs, and what was left out."""
        yield from _settings_that_differ(self._a, self._b)
        for store in (self._a, self._b):
            there = sum(shard.n_items for shard in store.shards())
            total = int(store.settings["n_rows"])
            if there < total:
                yield f"{store.path} is not complete: {there} of {total} rows."
        if self._other_units:
            yield f"{self._other_units} pairs are left out: their units differ."
        for group in groups:
            if group.n_prompts < FEWEST:
                yield (
                    f"{group.n_prompts} prompts are too few for intervals ({FEWEST} "
                    "are needed)."
                )


def _settings_that_differ(a: Store, b: Store) -> Iterator[str]:
    """What of the reading is not the same, one sentence."""
    differ = []
    for name in ("baseline", "lens", "estimator", "by", "precision"):
        one, other = (store.settings["reading"].get(name) for store in (a, b))
        if one != other:
            differ.append(f"{name} ({_word(one)}, {_word(other)})")
    one, other = (store.settings["null"]["of"] for store in (a, b))
    if one != other:
        differ.append(f"null ({one}, {other})")
    if differ:
        yield f"Besides what is compared, these differ: {', '.join(differ)}."


def _word(value: Any) -> str:
    """A setting, in a word."""
    return " + ".join(map(str, value)) if isinstance(value, list) else str(value)


def _batch(table: "pyarrow.Table", start: int) -> "pyarrow.RecordBatch":
    """Some rows in one piece."""
    some = table.slice(start, _AT_ONCE).combine_chunks()
    return some.to_batches()[0]


def _said(store: Store) -> Mapping[str, Any]:
    """What is repeated of `run.json`."""
    return {name: store.settings.get(name) for name in SAID}
