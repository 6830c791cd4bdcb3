"""Timing fairly on a noisy machine: short interleaved pairs, medians of ratios."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Paired:
    """Two ways of doing something, timed in turns.

    Attributes:
        ratio: Median over the pairs of the first's time by the second's.
        spread: Smallest and largest ratio.
        first: Median seconds of the first.
        second: Median seconds of the second.
    """

    ratio: float
    spread: tuple[float, float]
    first: float
    second: float

    def __str__(self) -> str:
        low, high = self.spread
        return (
            f"{self.ratio:8.2f}x  [{low:.2f} … {high:.2f}]   "
            f"{self.first:.3f} s against {self.second:.3f} s"
        )


def paired(
    first: Callable[[], object], second: Callable[[], object], pairs: int = 5
) -> Paired:
    """Run two functions in turns, each pair in the other order than the last."""
    first(), second()  # warm up
    times: list[tuple[float, float]] = []
    for turn in range(pairs):
        if turn % 2:
            b = _seconds(second)
            a = _seconds(first)
        else:
            a = _seconds(first)
            b = _seconds(second)
        times.append((a, b))
    ratios = [a / b for a, b in times]
    return Paired(
        statistics.median(ratios),
        (min(ratios), max(ratios)),
        statistics.median(a for a, _ in times),
        statistics.median(b for _, b in times),
    )


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
