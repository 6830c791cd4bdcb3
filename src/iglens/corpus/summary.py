"""From a store to statistics: one pass over the shards, in memory that does not grow.

What is held is sums: per group of rows, some numbers times replicates. Slices need a
look at their columns before, to know which groups there are.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..errors import ArgumentError, ArtifactError
from ..records import Segment
from ..records.summary import NullBeside, Slice, Summary
from ..storage.atomic import write_whole
from ..storage.summary_form import summary_to_json
from .accumulate import Accumulator, Settings, numbers_of
from .bootstrap import FEWEST, REPLICATES, Drawn, check_settings
from .columns import NEEDED, Rows
from .slices import Slicing, slicings
from .store import Store

LEVEL = 0.95
"""Share of intervals that are to be right."""

_AT_ONCE = 1024
"""Rows that are looked at together."""

SAID = (
    "model",
    "input",
    "selection",
    "question",
    "reading",
    "null",
    "versions",
    "settings_sha256",
)
"""What a summary repeats of `run.json`."""

Progress = Callable[[str, int, int | None], None]
"""Told a stage, how many rows are done, and how many there are."""


def tell_nobody(stage: str, done: int, total: int | None) -> None:
    """Tell nobody."""


def summarise(
    run: Store | str | Path,
    *,
    slices: Sequence[str] = (),
    null: Store | str | Path | None = None,
    level: float = LEVEL,
    bootstrap: int = REPLICATES,
    seed: int = 0,
    progress: Progress = tell_nobody,
) -> Summary:
    """Statistics of a run, with intervals bootstrapped by prompt.

    Args:
        run: The store, or its folder. If it is not complete, what is there counts.
        slices: Columns to sort rows by; each gives statistics of its own.
        null: A run of the same path in which there is nothing to find.
        level: Share of intervals that are to be right.
        bootstrap: Replicates.
        seed: What they are drawn from.
        progress: Told how far it is.

    Raises:
        ArtifactError: If a folder holds no run, or a shard is damaged.
        ArgumentError: If a column is not there, a number is out of range, or `null` is
            no null of such a run.
    """
    check_settings(level, bootstrap, seed)
    store = _store(run)
    settings = Settings(segments_of(store), level, bootstrap, seed)
    sorting = slicings(store, slices) if settings.segments else []
    n_items, failures = _counts(store)
    found = _Groups(settings, sorting)
    found.read(store, progress)
    beside, notes = None, _notes(store, n_items)
    if null is not None:
        beside, more = _null(_store(null), store, found, progress)
        notes += more
    whole = tuple(one.group() for one in found.whole.values())
    notes += [
        f"{g.n_prompts} prompts are too few for intervals ({FEWEST} are needed)."
        for g in whole
        if g.n_prompts < FEWEST
    ]
    return Summary(
        {name: store.settings.get(name) for name in SAID},
        settings.segments,
        whole,
        tuple(found.slice(one) for one in sorting),
        beside,
        n_items,
        int(store.settings["n_rows"]),
        failures,
        level,
        bootstrap,
        seed,
        tuple(notes),
    )


def write_summary(store: Store, summary: Summary | None = None) -> Summary:
    """Write `summary.json`: statistics of all rows, recomputable from the shards.

    Args:
        store: The run.
        summary: Its summary with the usual settings and no slices, if it is known.

    Returns:
        The summary.

    Raises:
        OutputError: If it cannot be written.
    """
    found = summarise(store) if summary is None else summary
    text = json.dumps(summary_to_json(found), indent=1, allow_nan=False)
    write_whole(store.path / "summary.json", text.encode("ascii") + b"\n")
    return found


def is_standard(summary: Summary) -> bool:
    """Whether this is what `summary.json` holds: complete, usual, and whole."""
    usual = (summary.level, summary.n_replicates, summary.seed) == (
        LEVEL,
        REPLICATES,
        0,
    )
    return summary.complete and usual and not summary.slices and summary.null is None


def segments_of(store: Store) -> tuple[Segment, ...]:
    """The path that all rows of a store were read along; none if there are no rows.

    Raises:
        ArtifactError: If there is no shard, or they differ.
    """
    known, n_shards = None, 0
    for shard in store.shards():
        n_shards += 1
        if shard.segments is None:
            continue
        if known is not None and known != shard.segments:
            raise ArtifactError(
                f"{store.shard_path(shard.number)} was read along another path than "
                "the shards before it. Remove it and give the command of the run again."
            )
        known = shard.segments
    if not n_shards:
        raise ArtifactError(
            f"{store.path} holds a run without results: none of its {store.n_shards} "
            "shards is there yet. Give the command of the run again to compute them."
        )
    return tuple(Segment(**each) for each in known or [])


class _Groups:
    """Accumulators of a run: of all rows, and of every group of every slice."""

    def __init__(self, settings: Settings, sorting: Sequence[Slicing]) -> None:
        """Nothing yet."""
        self.settings, self._sorting = settings, sorting
        self.whole: dict[str, Accumulator] = {}
        self._sliced: dict[tuple[str, int, str], Accumulator] = {}

    def read(self, store: Store, progress: Progress) -> None:
        """Add all rows of a store."""
        if not self.settings.segments:
            return
        names = [*dict.fromkeys([*NEEDED, *(one.column for one in self._sorting)])]
        total, done = sum(shard.n_rows for shard in store.shards()), 0
        settings = self.settings
        for batch in store.batches(names, _AT_ONCE):
            if not len(batch):
                continue
            rows = Rows.of(batch, len(settings.segments))
            numbers = numbers_of(rows, settings)
            drawn = Drawn.of(rows.prompts, settings.n_replicates, settings.seed)
            for unit in dict.fromkeys(rows.units.tolist()):
                own = rows.units == unit
                place = np.flatnonzero(own)
                whole = self._of_all(unit)
                whole.add(rows, numbers, drawn, place)
                for slicing in self._sorting:
                    groups = slicing.groups(batch)
                    for at in np.unique(groups[own]).tolist():
                        one = self._of(slicing, at, unit)
                        which = np.flatnonzero(own & (groups == at))
                        one.add(rows, numbers, drawn, which)
            done += len(batch)
            progress("Rows", done, total)

    def _of_all(self, unit: str) -> Accumulator:
        """All rows of a unit."""
        if unit not in self.whole:
            self.whole[unit] = Accumulator(self.settings, "all", "all", unit)
        return self.whole[unit]

    def _of(self, slicing: Slicing, at: int, unit: str) -> Accumulator:
        """One group of a slice, in a unit."""
        key = slicing.column, at, unit
        if key not in self._sliced:
            named = slicing.names[at], slicing.kinds[at]
            self._sliced[key] = Accumulator(self.settings, *named, unit)
        return self._sliced[key]

    def slice(self, slicing: Slicing) -> Slice:
        """The statistics of one column."""
        found = {k: v for k, v in self._sliced.items() if k[0] == slicing.column}
        keys = sorted(found, key=lambda key: (key[2], key[1]))
        contrasts = []
        for unit in self.whole:
            two = [found[key] for key in keys if key[2] == unit]
            if len(two) == 2:
                contrasts.append(two[1].less(two[0]))
        groups = tuple(found[key].group() for key in keys)
        return Slice(slicing.column, groups, tuple(contrasts))


def _null(
    null: Store, store: Store, found: _Groups, progress: Progress
) -> tuple[NullBeside, list[str]]:
    """The statistics of a null, beside a run."""
    of = (null.settings.get("null") or {}).get("of", "none")
    if of == "none":
        raise ArgumentError(
            f"{null.path} is no null: it asks the model itself for its own targets. A "
            "null is a run made with `--null targets` or `--null weights`."
        )
    settings = found.settings
    if [s.place for s in segments_of(null)] != [s.place for s in settings.segments]:
        raise ArgumentError(
            f"{null.path} was read along another path than {store.path}; give the null "
            "the same model, `--layers`, `--by` and `--baseline`."
        )
    notes = []
    seed = settings.seed
    if not same_prompts(null, store):
        notes.append("The null is of other prompts; both are drawn independently.")
        seed += 1
    other = _Groups(
        Settings(settings.segments, settings.level, settings.n_replicates, seed), ()
    )
    other.read(null, progress)
    contrasts = [
        mine.less(other.whole[unit])
        for unit, mine in found.whole.items()
        if unit in other.whole
    ]
    groups = tuple(one.group() for one in other.whole.values())
    return NullBeside(str(of), groups, tuple(contrasts)), notes


def same_prompts(a: Store, b: Store) -> bool:
    """Whether two runs have the same rows of the same input, in the same shards."""

    def said(store: Store) -> tuple[object, object]:
        return store.settings["input"]["fingerprint"], store.settings["selection"]

    return said(a) == said(b)


def _store(run: Store | str | Path) -> Store:
    """A run."""
    return run if isinstance(run, Store) else Store.load(Path(run))


def _counts(store: Store) -> tuple[int, dict[str, int]]:
    """Rows of the input that are there, and those that failed by kind of error."""
    n_items, kinds = 0, Counter[str]()
    for shard in store.shards():
        n_items += shard.n_items
        kinds.update(failure.error for failure in shard.failures)
    return n_items, dict(sorted(kinds.items()))


def _notes(store: Store, n_items: int) -> list[str]:
    """What must be known of the run itself."""
    total = int(store.settings["n_rows"])
    if n_items == total:
        return []
    return [
        f"The run is not complete: {n_items} of {total} rows are there; these are "
        "statistics of them. Give the command of the run again to go on."
    ]
