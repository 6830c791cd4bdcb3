"""Layer Conductance gives every layer the whole change."""

from collections.abc import Iterator

import numpy as np

import iglens

from .section import Row, Section, Size, small
from .subjects import Subject

METHODS = ("conductance-captum", "conductance")


def _rows(subject: Subject, size: Size) -> Iterator[Row]:
    """Both rules at every number of steps; the mean over prompts."""
    for n_steps in size.passes:
        found = [
            iglens.compare(
                subject.decoder,
                list(fact.ids),
                target=fact.target,
                methods=METHODS,
                n_steps=n_steps,
                audit=False,
            )
            for fact in subject.few(size.few)
        ]
        for name in METHODS:
            own = [each[name].found for each in found]
            changes = [said.total / subject.n_layers for said in own]
            shares = np.stack(
                [
                    said.credits / change
                    for said, change in zip(own, changes, strict=True)
                ]
            )
            yield (
                own[0] and found[0][name].title,
                str(n_steps),
                f"{np.mean(changes):+.2f}",
                str(subject.n_layers),
                f"{shares.sum(1).mean():.2f}",
                f"{shares.mean():.2f}",
                f"{shares.std(axis=1).mean():.2f}",
                small(float(np.abs([said.missed for said in own]).mean())),
            )


SECTION = Section(
    "conductance",
    lambda size: (
        "rule",
        "steps",
        "change",
        "layers",
        "sum / change",
        "a layer / change",
        "spread over layers",
        "the sum misses layers x change by",
    ),
    _rows,
)
