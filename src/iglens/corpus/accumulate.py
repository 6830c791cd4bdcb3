"""Statistics of a group of rows, from sums that rows are added to, then forgotten."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from ..records import Segment
from ..records.estimates import (
    DEPTHS,
    QUANTILES,
    Contrast,
    Estimate,
    Group,
    Histogram,
    Share,
    Spread,
)
from .bootstrap import Drawn, Replicated, Totals
from .columns import Rows
from .sketch import RESOLUTION, Sketch


@dataclass(frozen=True)
class Settings:
    """How statistics are made.

    Attributes:
        segments: The steps of the path.
        level: Share of intervals that are to be right.
        n_replicates: Weights per prompt.
        seed: Chooses the weights.
    """

    segments: tuple[Segment, ...]
    level: float
    n_replicates: int
    seed: int

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """Layers of the path, with the embedding."""
        return tuple(sorted({0, *(segment.layer for segment in self.segments)}))

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """Kinds of parts, if the path goes through some."""
        if not any(segment.is_part for segment in self.segments):
            return ()
        return tuple(dict.fromkeys(segment.part for segment in self.segments))

    @cached_property
    def places(self) -> "Places":
        """Where each number stands in a row of sums."""
        return Places(len(self.segments), len(self.parts))


@dataclass(frozen=True)
class Places:
    """Columns of the sums: one number each, or several next to each other.

    Attributes:
        n_segments: Number of segments.
        n_parts: Kinds of parts.
    """

    n_segments: int
    n_parts: int

    rows = 0
    known_correct, correct = 1, 2
    churn, n_churn, overshoot, n_overshoot = 3, 4, 5, 6
    absolute = 7
    _first = 8

    def depth(self, at: int) -> tuple[int, int]:
        """Sum of layers of a depth, and how many rows have one."""
        return self._first + 2 * at, self._first + 2 * at + 1

    @property
    def counts(self) -> tuple[int, ...]:
        """Those that count rows."""
        depths = (self.depth(at)[1] for at in range(len(DEPTHS)))
        return (
            self.rows,
            self.known_correct,
            self.n_churn,
            self.n_overshoot,
            *depths,
        )

    @property
    def credits(self) -> slice:
        """Credits of the segments."""
        start = self._first + 2 * len(DEPTHS)
        return slice(start, start + self.n_segments)

    @property
    def levels(self) -> slice:
        """Levels of the points."""
        return slice(self.credits.stop, self.credits.stop + self.n_segments + 1)

    @property
    def final(self) -> int:
        """The last level."""
        return self.levels.stop - 1

    @property
    def absolutes(self) -> slice:
        """Absolute credits of the kinds of parts."""
        return slice(self.levels.stop, self.levels.stop + self.n_parts)

    @property
    def nets(self) -> slice:
        """Credits of the kinds of parts."""
        return slice(self.absolutes.stop, self.absolutes.stop + self.n_parts)

    @property
    def net(self) -> int:
        """All credits."""
        return self.nets.stop

    @property
    def width(self) -> int:
        """How many there are."""
        return self.net + 1


def numbers_of(rows: Rows, settings: Settings) -> Float[np.ndarray, "rows numbers"]:
    """What is summed of each row."""
    at = settings.places
    found = np.zeros((len(rows.prompts), at.width))
    found[:, at.rows] = 1
    pairs = [
        (rows.correct, at.correct, at.known_correct),
        (rows.churn, at.churn, at.n_churn),
        (rows.overshoot, at.overshoot, at.n_overshoot),
    ]
    pairs += [(rows.depths[:, i], *at.depth(i)) for i in range(len(DEPTHS))]
    for values, total, count in pairs:
        known = np.isfinite(values)
        found[:, total] = np.where(known, values, 0.0)
        found[:, count] = known
    found[:, at.credits] = rows.credits
    found[:, at.levels] = rows.levels
    found[:, at.absolute] = np.abs(rows.credits).sum(1)
    found[:, at.net] = rows.credits.sum(1)
    kinds = np.array([segment.part for segment in settings.segments])
    for i, part in enumerate(settings.parts):
        own = rows.credits[:, kinds == part]
        found[:, at.absolutes.start + i] = np.abs(own).sum(1)
        found[:, at.nets.start + i] = own.sum(1)
    return found


class Accumulator:
    """All that is known of a group of rows."""

    def __init__(self, settings: Settings, value: str, kind: str, unit: str) -> None:
        """Nothing yet.

        Args:
            settings: How statistics are made.
            value: See `Group`.
            kind: See `Group`.
            unit: See `Group`.
        """
        self._settings, self._named = settings, (value, kind, unit)
        at = settings.places
        self._totals = Totals(at.width, settings.n_replicates, at.counts)
        self._counts = np.zeros((len(DEPTHS), len(settings.layers)), np.int64)
        self._churn, self._overshoot = Sketch(), Sketch()
        self._flags: Counter[str] = Counter()
        self._worst = float("nan")
        self._n_left_out = 0

    def add(
        self,
        rows: Rows,
        numbers: Float[np.ndarray, "rows numbers"],
        drawn: Drawn,
        which: Int[np.ndarray, " some"],
    ) -> None:
        """Add some rows of a batch.

        Args:
            rows: The batch.
            numbers: What is summed of each of its rows.
            drawn: Weights for them.
            which: The rows to add.
        """
        for row in which.tolist():
            self._flags.update(set(rows.flags[row]))
        fidelity = rows.fidelity[which]
        if np.isfinite(fidelity).any():
            self._worst = float(np.nanmax([self._worst, np.nanmax(fidelity)]))
        kept = which[rows.finite[which]]
        self._n_left_out += len(which) - len(kept)
        self._totals.add(numbers[kept], drawn, kept)
        self._churn.add(rows.churn[kept] - 1)  # what is finely told lies near 1
        self._overshoot.add(rows.overshoot[kept])
        layers = np.array(self._settings.layers)
        for at, depths in enumerate(rows.depths[kept].T):
            found = np.searchsorted(layers, depths[np.isfinite(depths)])
            self._counts[at] += np.bincount(found, minlength=len(layers))

    @property
    def empty(self) -> bool:
        """Whether no row was added."""
        return not self._totals.n_prompts and not self._n_left_out

    @property
    def n_rows(self) -> int:
        """Rows that were added, without those left out."""
        return int(self._totals.sums[self._settings.places.rows])

    def group(self) -> Group:
        """The statistics."""
        at, level = self._settings.places, self._settings.level
        value, kind, unit = self._named
        return Group(
            value,
            kind,
            unit,
            self._totals.n_prompts,
            self.n_rows,
            self._n_left_out,
            self._mean(at.credits).band(level),
            self._mean(at.levels).band(level),
            self._mean(at.final).estimate(level),
            {name: self._histogram(i) for i, name in enumerate(DEPTHS)},
            self._spread(self._churn, at.churn, at.n_churn, least=1.0),
            self._spread(self._overshoot, at.overshoot, at.n_overshoot),
            tuple(self._share(i) for i in range(at.n_parts)),
            self._totals.ratio(at.correct, at.known_correct).estimate(level),
            int(self._totals.sums[at.known_correct]),
            self._worst,
            dict(sorted(self._flags.items())),
        )

    def less(self, other: "Accumulator") -> Contrast:
        """The difference to another group, which was drawn with the same weights."""
        at, level = self._settings.places, self._settings.level
        depths = {
            name: self._between(other, *at.depth(i)) for i, name in enumerate(DEPTHS)
        }
        return Contrast(
            other._named[0],
            self._named[0],
            self._named[2],
            (self._mean(at.credits) - other._mean(at.credits)).band(level),
            (self._mean(at.final) - other._mean(at.final)).estimate(level),
            depths,
            self._between(other, at.correct, at.known_correct),
        )

    def _between(self, other: "Accumulator", above: int, below: int) -> Estimate:
        """Difference of two ratios."""
        ratios = (one._totals.ratio(above, below) for one in (self, other))
        mine, others = ratios
        return (mine - others).estimate(self._settings.level)

    def _mean(self, place: slice | int) -> Replicated:
        """Means over the rows."""
        return self._totals.ratio(place, self._settings.places.rows)

    def _histogram(self, at: int) -> Histogram:
        """Where one depth lies."""
        counts = self._counts[at]
        mean = self._totals.ratio(*self._settings.places.depth(at))
        return Histogram(
            self._settings.layers,
            counts.copy(),
            self.n_rows - int(counts.sum()),
            mean.estimate(self._settings.level),
        )

    def _spread(
        self, sketch: Sketch, total: int, count: int, least: float = 0.0
    ) -> Spread:
        """How one number is spread."""
        return Spread(
            sketch.n,
            self.n_rows - sketch.n,
            self._totals.ratio(total, count).estimate(self._settings.level),
            tuple(least + sketch.quantile(share) for share in QUANTILES),
            RESOLUTION,
        )

    def _share(self, at: int) -> Share:
        """What one kind of part has."""
        places, level = self._settings.places, self._settings.level
        net = self._totals.ratio(places.nets.start + at, places.net)
        absolute = self._totals.ratio(places.absolutes.start + at, places.absolute)
        return Share(
            self._settings.parts[at], net.estimate(level), absolute.estimate(level)
        )
