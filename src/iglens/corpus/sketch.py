"""Quantiles of a stream, from counts in bins that grow with the numbers."""

import math

import numpy as np
from jaxtyping import Float

RESOLUTION = 0.01
"""Relative error of a quantile."""

SMALLEST, LARGEST = 1e-9, 1e9
"""Numbers below the first count as 0; those above the second as that."""

_STEP = (1 + RESOLUTION) / (1 - RESOLUTION)
_BINS = math.ceil(math.log(LARGEST / SMALLEST) / math.log(_STEP)) + 1


class Sketch:
    """Counts of numbers that are not negative, in bins of constant relative width.

    The quantile it gives is within `RESOLUTION` (relatively) of a number that was met
    at that rank. Counts add up: sketches can be merged, in any order.

    References:
        Masson, Rim and Lee 2019, DDSketch (arXiv:1908.10693).
    """

    def __init__(self) -> None:
        """Nothing yet."""
        self._counts = np.zeros(_BINS + 1, np.int64)

    @property
    def n(self) -> int:
        """How many numbers there are."""
        return int(self._counts.sum())

    def add(self, values: Float[np.ndarray, " some"]) -> None:
        """Count numbers; those that are NaN are none."""
        known = np.clip(values[~np.isnan(values)], 0.0, LARGEST)
        bins = np.zeros(len(known), np.int64)
        there = known >= SMALLEST
        logs = np.log(known[there] / SMALLEST) / math.log(_STEP)
        bins[there] = np.ceil(logs).astype(np.int64).clip(0, _BINS - 1) + 1
        self._counts += np.bincount(bins, minlength=len(self._counts))

    def quantile(self, share: float) -> float:
        """The number that this share of them does not exceed; NaN if there are none."""
        if not self.n:
            return float("nan")
        rank = share * (self.n - 1)
        at = int((self._counts.cumsum() > rank).argmax())
        if at == 0:
            return 0.0
        return SMALLEST * _STEP ** (at - 1) * 2 / (1 + _STEP)
