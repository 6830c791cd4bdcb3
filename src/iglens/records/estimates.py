"""Numbers over a corpus: what they are estimated to be, and between which bounds."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from .segment import Segment

DEPTHS = ("onset_mass", "onset_net", "commit", "prediction_depth")
"""The depths that are counted layer by layer."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""What is told of how churn and overshoot are spread."""


@dataclass(frozen=True)
class Estimate:
    """One number, and an interval for it.

    Attributes:
        value: The number over all rows; NaN if there are none.
        low: Lower end of the interval; NaN if there is none.
        high: Upper end.
    """

    value: float
    low: float = float("nan")
    high: float = float("nan")

    @property
    def bounded(self) -> bool:
        """Whether there is an interval."""
        return self.low == self.low


@dataclass(frozen=True, eq=False)
class Band:
    """A mean along the path, and bounds for it.

    Attributes:
        mean: Mean over the rows.
        low: Lower ends of intervals, each for its own place; NaN if there are none.
        high: Upper ends.
        band_low: Lower edge of a band that holds the whole curve at once.
        band_high: Upper edge.
    """

    mean: Float[np.ndarray, " steps"]
    low: Float[np.ndarray, " steps"]
    high: Float[np.ndarray, " steps"]
    band_low: Float[np.ndarray, " steps"]
    band_high: Float[np.ndarray, " steps"]

    @property
    def clear(self) -> np.ndarray:
        """Where the band leaves out zero; nowhere if there is none."""
        return np.asarray((self.band_low > 0) | (self.band_high < 0))


@dataclass(frozen=True, eq=False)
class Histogram:
    """At which layers something happened.

    Attributes:
        layers: Layers of the path, ascending; 0 is the embedding.
        counts: How many rows it happened in up to each, and not before.
        missing: Rows in which it never did.
        mean: Mean layer of the others.
    """

    layers: tuple[int, ...]
    counts: Int[np.ndarray, " layers"]
    missing: int
    mean: Estimate

    @property
    def median(self) -> int | None:
        """First layer up to which it happened in half of the rows that have one."""
        total = int(self.counts.sum())
        if not total:
            return None
        return self.layers[int((2 * self.counts.cumsum() >= total).argmax())]


@dataclass(frozen=True)
class Spread:
    """How a number is spread over the rows.

    Attributes:
        n: Rows that have it.
        missing: Rows that have none.
        mean: Its mean.
        quantiles: The quantiles named by `QUANTILES`.
        resolution: Relative error of a quantile, counted from the least that the
            number can be (1 for churn, 0 for overshoot).
    """

    n: int
    missing: int
    mean: Estimate
    quantiles: tuple[float, ...]
    resolution: float


@dataclass(frozen=True)
class Share:
    """How much of the credits one kind of part has.

    Attributes:
        part: What it is, such as "attention".
        net: Its credits over all credits; may lie outside 0 and 1.
        absolute: The same of absolute credits.
    """

    part: str
    net: Estimate
    absolute: Estimate


@dataclass(frozen=True, eq=False)
class Group:
    """Statistics of some rows of a run.

    Attributes:
        value: Value of the column that they share; "all" if they are all rows.
        kind: "all", "value", "bin" (numbers between two bounds), "null" (the cell is
            empty), or "rest" (values that have too few rows to be told).
        unit: Unit of levels and credits.
        n_prompts: Prompts (rows of the input) that they come from.
        n_rows: Explained tokens.
        n_left_out: Further tokens, left out because a level is not finite.
        credits: Mean credit of every segment.
        levels: Mean level at every point.
        final: Mean of the last level.
        depths: Where each of `DEPTHS` lies.
        churn: Spread of churn.
        overshoot: Spread of overshoot, in the unit.
        shares: Shares of the kinds of parts, if the path goes through parts.
        correct: Share of targets that are the model's most probable token; NaN where
            that has no meaning.
        n_judged: Rows in which it has.
        fidelity: Largest fidelity of a row; NaN if unknown.
        flags: Rows by what is odd about them.
    """

    value: str
    kind: str
    unit: str
    n_prompts: int
    n_rows: int
    n_left_out: int
    credits: Band
    levels: Band
    final: Estimate
    depths: Mapping[str, Histogram]
    churn: Spread
    overshoot: Spread
    shares: tuple[Share, ...]
    correct: Estimate
    n_judged: int
    fidelity: float
    flags: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Contrast:
    """What one group of rows has more than another: `b - a`.

    Attributes:
        a: Name of the group that is taken away.
        b: Name of the group it is taken from.
        unit: Unit of levels and credits.
        credits: Difference of the mean credits.
        final: Difference of the mean last levels.
        depths: Difference of the mean layers.
        correct: Difference of the shares of correct targets.
    """

    a: str
    b: str
    unit: str
    credits: Band
    final: Estimate
    depths: Mapping[str, Estimate]
    correct: Estimate


@dataclass(frozen=True)
class Crossing:
    """The shortest stretch of the path that holds half of a change.

    Attributes:
        after: Layer it starts at; None for a baseline off the path.
        upto: Layer it ends at.
        credit: What its segments have together.
        change: What all have.
    """

    after: int | None
    upto: int
    credit: float
    change: float


def crossing(
    credits: Float[np.ndarray, " segments"], segments: tuple[Segment, ...]
) -> Crossing | None:
    """Neighbouring segments with half of the change, as few as there are.

    Of several such stretches, the one with most of it; None if nothing changes.

    Example:
        >>> from iglens.records import block_segment
        >>> path = tuple(block_segment(at, at + 1, ()) for at in range(4))
        >>> found = crossing(np.array([0.1, 0.0, 0.3, 0.4]), path)
        >>> found.after, found.upto
        (3, 4)
    """
    change = float(credits.sum())
    if not np.isfinite(change) or change == 0:
        return None
    sums = np.concatenate([[0.0], np.cumsum(np.sign(change) * credits)])
    for length in range(1, len(segments) + 1):
        inside = sums[length:] - sums[:-length]
        best = int(inside.argmax())
        if inside[best] >= abs(change) / 2 or length == len(segments):
            last = segments[best + length - 1]
            credit = float(np.sign(change) * inside[best])
            return Crossing(segments[best].after, last.layer, credit, change)
    return None
