"""What was set as a target, and whether it was met."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .cases.maps import PLAIN, SPARED
from .results import Measurement, Results

TIMES = "\u00d7"
"""What follows a ratio."""

Values = dict[str, float]
"""A number per model; "" where there is no model."""


@dataclass(frozen=True)
class Claim:
    """A target.

    Attributes:
        text: What is claimed.
        bound: The number.
        at_most: Whether it is an upper bound.
        unit: Of the number; a multiplication sign for ratios.
        values: What was measured.
    """

    text: str
    bound: float
    at_most: bool
    unit: str
    values: Callable[[Results], Values]

    def met(self, results: Results) -> bool | None:
        """Whether every model meets it; None if it was not measured."""
        found = self.values(results).values()
        if not found:
            return None
        return all(
            value <= self.bound if self.at_most else value >= self.bound
            for value in found
        )


def models(results: Results) -> list[str]:
    """In the order they were measured in."""
    return list(dict.fromkeys(each.model for each in results.of("map")))


def worst(results: Results, case: str, what: str) -> Values:
    """The largest number of each model."""
    found: Values = {}
    for each in results.of(case, what=what):
        found[each.model] = max(each.median, found.get(each.model, each.median))
    return found


def others(results: Results, case: str, model: str) -> Iterator[Measurement]:
    """What neighbours were measured at, on the shortest text."""
    own = [*results.of(case, model=model, what=PLAIN)]
    shortest = min((each.tokens for each in own), default=0)
    for each in results.of(case, model=model, tokens=shortest):
        if each.what in results.neighbours and (each.ratios or each.value is not None):
            yield each


def against(results: Results, what: str, tool: str = "") -> Values:
    """A neighbour's readout by ours, each by its own bare product.

    Args:
        results: What was measured.
        what: Which of ours.
        tool: The neighbour; empty for the fastest.
    """
    found: Values = {}
    for model in models(results):
        every = others(results, "map", model)
        there = [each for each in every if tool in ("", each.what)]
        if there:
            (own,) = results.of("map", what=what, model=model, tokens=there[0].tokens)
            found[model] = min(each.median for each in there) / own.median
    return found


def against_published(results: Results, what: str) -> Values:
    """The published procedure with its 64 steps by ours, in the same rounds."""
    steps = "published procedure, 64 steps"
    found = results.of("published", what=steps, against=what)
    return {each.model: each.median for each in found}


def excess_of_error(results: Results) -> Values:
    """Our largest error by the smallest of a neighbour's largest errors."""
    found: Values = {}
    for model in models(results):
        there = others(results, "accuracy", model)
        least = min((each.median for each in there), default=0.0)
        if least:
            (own,) = results.of("accuracy", what=PLAIN, model=model)
            found[model] = own.median / least
    return found


def seconds_of(results: Results, what: str) -> Values:
    """Median seconds of a program."""
    found: Values = {}
    for each in results.of("start", what=what):
        times = sorted(each.seconds[what])
        found[each.model] = times[len(times) // 2]
    return found


CLAIMS = (
    Claim(
        "Readout by torch's bare product, every point read whole",
        1.15,
        True,
        TIMES,
        lambda r: worst(r, "map", PLAIN),
    ),
    Claim(
        "Readout by torch's bare product, points finished early",
        0.70,
        True,
        TIMES,
        lambda r: worst(r, "map", SPARED),
    ),
    Claim(
        "Readout by the product that it chose, every point read whole",
        1.15,
        True,
        TIMES,
        lambda r: worst(r, "floor", PLAIN),
    ),
    Claim(
        "Readout by the product that it chose, points finished early",
        0.70,
        True,
        TIMES,
        lambda r: worst(r, "floor", SPARED),
    ),
    Claim(
        "The fastest neighbour's readout by ours",
        3.0,
        False,
        TIMES,
        lambda r: against(r, PLAIN),
    ),
    Claim(
        "The fastest neighbour's readout by ours, points finished early",
        5.0,
        False,
        TIMES,
        lambda r: against(r, SPARED),
    ),
    Claim(
        "TransformerLens's readout by ours",
        3.0,
        False,
        TIMES,
        lambda r: against(r, PLAIN, "TransformerLens"),
    ),
    Claim(
        "TransformerLens's readout by ours, points finished early",
        5.0,
        False,
        TIMES,
        lambda r: against(r, SPARED, "TransformerLens"),
    ),
    Claim(
        "The published procedure, 64 steps, by ours",
        200.0,
        False,
        TIMES,
        lambda r: against_published(r, SPARED),
    ),
    Claim(
        "Largest error by the most accurate neighbour's",
        1.0,
        True,
        TIMES,
        excess_of_error,
    ),
    Claim(
        "Peak memory beyond states and forward pass",
        64.0,
        True,
        " MiB",
        lambda r: worst(r, "memory", "iglens"),
    ),
    Claim("`iglens --help`", 0.3, True, " s", lambda r: seconds_of(r, "iglens --help")),
    Claim(
        "Cached `iglens explain` by loading and generating alone",
        1.3,
        True,
        TIMES,
        lambda r: worst(r, "start", "iglens explain"),
    ),
    Claim(
        "Corpus: throughput by that of forwards and readouts alone",
        0.85,
        False,
        TIMES,
        lambda r: worst(r, "corpus", "alone"),
    ),
)
