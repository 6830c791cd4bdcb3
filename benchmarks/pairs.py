"""Timing fairly on a noisy machine: short turns, and ratios within each round."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

Way = Callable[[], object]
"""One way of doing something."""


@dataclass(frozen=True)
class Turns:
    """Several ways of doing something, timed in turns.

    Attributes:
        seconds: Of every way, by round.
    """

    seconds: Mapping[str, tuple[float, ...]]

    def ratios(self, first: str, second: str, counted: float = 1.0) -> list[float]:
        """Time of one way by that of another, in every round.

        Args:
            first: Name of the one.
            second: Name of the other.
            counted: How many times the one is counted, if only a part of it was run.
        """
        both = zip(self.seconds[first], self.seconds[second], strict=True)
        return [counted * one / other for one, other in both]

    def less(self, whole: str, part: str, name: str) -> "Turns":
        """With a further way: what is left of one without another, round by round."""
        both = zip(self.seconds[whole], self.seconds[part], strict=True)
        return Turns({**self.seconds, name: tuple(one - other for one, other in both)})


def in_turns(rounds: Iterable[Mapping[str, Way]], *, warm: bool = True) -> Turns:
    """Run every round's ways one after the other, every second round backwards.

    Machines slow down while they are busy; what is compared is therefore timed within
    seconds of each other, and first as often as last.

    Args:
        rounds: The ways of every round, by name; the names are the same in all.
        warm: Whether the first round's ways are run once before, untimed.
    """
    seconds: dict[str, list[float]] = {}
    for turn, ways in enumerate(rounds):
        if warm and not turn:
            for way in ways.values():
                way()
        names = list(ways)
        for name in reversed(names) if turn % 2 else names:
            start = time.perf_counter()
            ways[name]()
            seconds.setdefault(name, []).append(time.perf_counter() - start)
    return Turns({name: tuple(values) for name, values in seconds.items()})
