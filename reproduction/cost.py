"""What every method takes, counted; times only as ratios within one run."""

from collections.abc import Iterator, Sequence

import numpy as np

import iglens
from iglens.records.comparison import Cost

from .section import Row, Section, Size
from .subjects import Fact, Subject

MANY_STEPS = 32
"""Steps of the methods that integrate: the default."""


def _rows(subject: Subject, size: Size) -> Iterator[Row]:
    """Every method of the comparison, the mean over prompts."""
    first, *_ = asked = subject.few(size.few)
    _compared(subject, first, "ig-lens")  # what is made once is in nobody's time
    found = [_compared(subject, fact, "all") for fact in asked]
    costs = {
        entry.title: [each.entries[at].cost for each in found]
        for at, entry in enumerate(found[0].entries)
    }
    costs["(skipping every layer)"] = [
        each.audited.cost for each in found if each.audited is not None
    ]
    unit = _seconds(costs["IG-Lens"])
    for title, own in costs.items():
        counts = (
            np.mean([getattr(cost, what) for cost in own])
            for what in ("forwards", "backwards", "head")
        )
        yield (
            title,
            *(f"{count:.0f}" for count in counts),
            f"{_seconds(own) / unit:.1f}",
        )


def _compared(subject: Subject, fact: Fact, methods: str) -> iglens.Comparison:
    """The methods on one prompt."""
    return iglens.compare(
        subject.decoder,
        list(fact.ids),
        target=fact.target,
        methods=methods,
        lens=subject.lens,
        n_steps=MANY_STEPS,
    )


def _seconds(costs: Sequence[Cost]) -> float:
    """The median."""
    return float(np.median([cost.seconds for cost in costs]))


SECTION = Section(
    "cost",
    lambda size: (
        "method",
        "passes",
        "passes back",
        "products with the unembedding",
        "time / IG-Lens's",
    ),
    _rows,
)
