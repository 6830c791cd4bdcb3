"""Direct Logit Attribution adds up in logits, and not in probability."""

from collections.abc import Iterator

import numpy as np

import iglens

from .section import Row, Section, Size, mean_and_worst, small
from .subjects import Subject

METHODS = ("ig-lens", "dla", "dla-sublayer", "dla-head")


def _rows(subject: Subject, size: Size) -> Iterator[Row]:
    """Every variant, over all prompts."""
    found = [
        iglens.compare(
            subject.decoder, list(f.ids), target=f.target, methods=METHODS, audit=False
        )
        for f in subject.facts
    ]
    for at, _ in enumerate(METHODS):
        own = [each.table[at] for each in found]
        if own[0].reason is not None:
            continue
        yield (
            own[0].title,
            str(own[0].unit),
            small(max(abs(line.own_error or 0.0) for line in own)),
            f"{np.mean([line.change for line in own]):.2f}",
            f"{np.mean([line.total for line in own]):.2f}",
            mean_and_worst([line.error for line in own]),
        )


SECTION = Section(
    "dla",
    lambda size: (
        "method",
        "unit",
        "its own sum misses, at most",
        "change of probability",
        "sum in probability",
        "error: mean (largest)",
    ),
    _rows,
)
