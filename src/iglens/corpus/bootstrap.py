"""Intervals for what is streamed: a bootstrap over prompts that nobody has to hold.

Rows of one prompt are no independent draws, so prompts are drawn, not rows. Drawing n
of n prompts with replacement needs them all at once; the Poisson bootstrap gives every
prompt a weight of its own in each replicate instead, drawn from Poisson(1), and needs
none (Hanley and MacGibbon 2006; Chamandy, Muralidharan, Najmi and Naidu 2012). Weights
come from a counter-based generator (Philox; Salmon et al. 2011) that is keyed by the
seed and counts prompts: they are the same in whatever order, batches or process prompts
arrive, and in whatever other statistic or run they turn up.

A mean over rows is then a ratio, `sum(w * values) / sum(w * rows)`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Int, UInt8

from ..errors import ArgumentError
from ..records.estimates import Band, Estimate

REPLICATES = 1000
"""Weights per prompt."""

FEWEST = 8
"""Prompts from which on there is an interval."""

_PER_DRAW = 2
"""Weights made of one draw of 64 bits."""


def poisson_table() -> Float[np.ndarray, " counts"]:
    """Cumulative probabilities of Poisson(1), as far as 32 bits can tell."""
    counts = np.arange(13)
    each = np.exp(-1.0) / np.array([math.factorial(int(n)) for n in counts])
    return np.cumsum(each)


_BOUNDS = np.floor(poisson_table() * 2.0**32).astype(np.uint64)


def weights(
    prompts: Int[np.ndarray, " prompts"], n_replicates: int, seed: int
) -> UInt8[np.ndarray, "prompts replicates"]:
    """How often each prompt counts in each replicate.

    Args:
        prompts: Their numbers.
        n_replicates: Number of replicates.
        seed: Chooses another bootstrap.
    """
    draws = -(-n_replicates // _PER_DRAW)
    raw = np.empty((len(prompts), draws), np.uint64)
    for at, prompt in enumerate(prompts.tolist()):
        counter = [0, 0, prompt, 0]
        raw[at] = np.random.Philox(key=seed, counter=counter).random_raw(draws)
    halves = np.concatenate([raw >> np.uint64(32), raw & np.uint64(0xFFFFFFFF)], 1)
    found = np.searchsorted(_BOUNDS, halves[:, :n_replicates], side="right")
    return found.astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Drawn:
    """The weights of the prompts that some rows come from.

    Attributes:
        place: Which of the prompts each row comes from.
        prompts: The prompts.
        weights: Their weights.
    """

    place: Int[np.ndarray, " rows"]
    prompts: Int[np.ndarray, " prompts"]
    weights: UInt8[np.ndarray, "prompts replicates"]

    @classmethod
    def of(
        cls, prompts: Int[np.ndarray, " rows"], n_replicates: int, seed: int
    ) -> "Drawn":
        """Weights for rows of these prompts."""
        unique, place = np.unique(prompts, return_inverse=True)
        return cls(place, unique, weights(unique, n_replicates, seed))


class Totals:
    """Sums of numbers over rows, plain and in every replicate.

    Attributes:
        sums: Over all rows.
        replicates: Over all rows, by the weights of their prompts.
    """

    def __init__(
        self, width: int, n_replicates: int, counts: Sequence[int] = ()
    ) -> None:
        """Nothing yet.

        Args:
            width: How many numbers a row has.
            n_replicates: Number of replicates.
            counts: Those of the numbers that say of how many rows others are sums.
        """
        self.sums = np.zeros(width)
        self.replicates = np.zeros((n_replicates, width))
        self._seen = Seen()
        self._counted = {at: Seen() for at in counts}

    @property
    def n_prompts(self) -> int:
        """Prompts that the rows come from."""
        return self._seen.count

    def add(
        self,
        values: Float[np.ndarray, "rows numbers"],
        drawn: Drawn,
        rows: Int[np.ndarray, " rows"],
    ) -> None:
        """Add rows.

        Args:
            values: Their numbers, all finite.
            drawn: Weights for these rows among others.
            rows: Which rows of `drawn` they are.
        """
        if not len(rows):
            return
        which, place = np.unique(drawn.place[rows], return_inverse=True)
        by_prompt = np.zeros((len(which), values.shape[1]))
        np.add.at(by_prompt, place, values)
        self.sums += by_prompt.sum(0)
        self.replicates += drawn.weights[which].astype(np.float64).T @ by_prompt
        prompts = drawn.prompts[which]
        self._seen.add(prompts)
        for at, seen in self._counted.items():
            seen.add(prompts[by_prompt[:, at] > 0])

    def ratio(self, above: slice | int, below: int) -> "Replicated":
        """Some sums over another."""
        under = self.replicates[:, below]
        if isinstance(above, slice):
            under = under[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            return Replicated(
                np.asarray(self.sums[above] / self.sums[below]),
                np.asarray(self.replicates[:, above] / under),
                self._counted.get(below, self._seen).count,
            )


@dataclass
class Seen:
    """Numbers that were met, a bit for each."""

    _bits: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint8))

    def add(self, numbers: Int[np.ndarray, " some"]) -> None:
        """Meet some numbers, none below 0."""
        if not len(numbers):
            return
        places, bits = numbers >> 3, np.uint8(1) << (numbers & 7).astype(np.uint8)
        short = int(places.max()) + 1 - len(self._bits)
        if short > 0:
            grown = np.zeros(max(short, len(self._bits)), np.uint8)
            self._bits = np.concatenate([self._bits, grown])
        np.bitwise_or.at(self._bits, places, bits)

    @property
    def count(self) -> int:
        """How many there were."""
        return int(np.bitwise_count(self._bits).sum())


@dataclass(frozen=True, eq=False)
class Replicated:
    """A statistic, and what it is in every replicate.

    Attributes:
        value: The statistic: one number, or several.
        replicates: One more axis, the first: its replicates; NaN in those that drew
            none of the rows.
        n_prompts: Prompts that it comes from.
    """

    value: np.ndarray
    replicates: np.ndarray
    n_prompts: int

    def __sub__(self, other: "Replicated") -> "Replicated":
        """The difference of two, replicate by replicate: shared prompts stay so."""
        return Replicated(
            np.asarray(self.value - other.value),
            self.replicates - other.replicates,
            min(self.n_prompts, other.n_prompts),
        )

    def estimate(self, level: float) -> Estimate:
        """One number with its interval."""
        low, high = self._ends(level)
        return Estimate(float(self.value), float(low), float(high))

    def band(self, level: float) -> Band:
        """Several numbers, with intervals and a band for all at once.

        The band is the mean plus and minus so many standard errors as the worst number
        of a replicate is off by, in as many replicates as the level says.
        """
        low, high = self._ends(level)
        edge = np.full_like(self.value, np.nan)
        if self.n_prompts >= FEWEST:
            edge = self._reach(level)
        return Band(self.value, low, high, self.value - edge, self.value + edge)

    def _ends(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Pointwise bounds: quantiles of the replicates, wider for few prompts."""
        known = self._known()
        if self.n_prompts < FEWEST or not len(known):
            none = np.full_like(self.value, np.nan, dtype=np.float64)
            return none, none
        z = NormalDist().inv_cdf((1 + level) / 2)
        tail = NormalDist().cdf(-widened(z, self.n_prompts))
        low, high = np.quantile(known, [tail, 1 - tail], axis=0)
        return np.asarray(low), np.asarray(high)

    def _reach(self, level: float) -> np.ndarray:
        """Half the width of the band at every place; for few prompts wider, too."""
        off = self._known() - self.value
        error = np.asarray(off.std(0))
        moved = error > 0
        if not moved.any() or not len(off):
            return np.zeros_like(self.value)
        worst = np.abs(off[:, moved] / error[moved]).max(1)
        return widened(float(np.quantile(worst, level)), self.n_prompts) * error

    def _known(self) -> np.ndarray:
        """Replicates in which the statistic is a number."""
        flat = self.replicates.reshape(len(self.replicates), -1)
        return self.replicates[np.isfinite(flat).all(1)]


def widened(z: float, n_prompts: int) -> float:
    """Standard errors that an interval from few prompts must reach, for a normal's z.

    Replicates vary by `sqrt((n - 1) / n)` too little, and normal quantiles are shorter
    than Student's. For z = 1.96, 8 prompts need 1.29 times as much, 60 need 1.03 times.

    References:
        Hesterberg 2015, What Teachers Should Know About the Bootstrap, section 4.3:
        expanded percentile intervals.
    """
    spread = math.sqrt(n_prompts / (n_prompts - 1))
    return spread * student_quantile(z, n_prompts - 1)


def student_quantile(z: float, freedom: int) -> float:
    """Student's quantile at the probability that a normal quantile has.

    Example:
        >>> round(student_quantile(1.959964, 7), 3)
        2.365

    References:
        Fisher and Cornish 1960, the expansion in powers of the degrees of freedom.
    """
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / freedom**power for power, term in enumerate(terms))


def check_settings(level: float, n_replicates: int, seed: int) -> None:
    """Refuse what gives no interval.

    Raises:
        ArgumentError: If a number is out of range.
    """
    if not 0.5 <= level < 1:
        raise ArgumentError(
            f"`level` is {level}; give the share of intervals that are to be right, "
            "from 0.5 to below 1, usually 0.95."
        )
    if not 100 <= n_replicates <= 100_000:
        raise ArgumentError(
            f"`bootstrap` is {n_replicates}; quantiles need 100 to 100000 replicates."
        )
    if not 0 <= seed < 2**63:
        raise ArgumentError(f"`seed` is {seed}; it must be at least 0.")
