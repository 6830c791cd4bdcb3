"""By how much the credits of every estimator miss what they should add up to."""

from collections.abc import Callable, Iterator
from typing import get_args

import torch

import iglens
from iglens.attribution.estimator import Rule

from .section import Row, Section, Size, mean_and_worst
from .subjects import Fact, Subject

DTYPES = {"float32": torch.float32, "float64": torch.float64}

ENOUGH = 16
"""Steps in float64 on a large vocabulary, at most."""

Missed = Callable[[Subject, Fact, int, torch.dtype], float]
"""Sum of credits less the change of probability, for a number of steps."""


def _rows(subject: Subject, size: Size) -> Iterator[Row]:
    """The observed estimator, IDGI, and the gradient by its three rules."""
    for name, dtype in DTYPES.items():
        for title, missed in ESTIMATORS.items():
            cells = []
            for n_steps in size.steps:
                if title == "observed" and cells:  # it has no steps
                    cells.append(cells[0])
                    continue
                if subject.large and dtype == torch.float64 and n_steps > ENOUGH:
                    cells.append("not run")
                    continue
                facts = subject.few(size.few)
                found = [missed(subject, fact, n_steps, dtype) for fact in facts]
                cells.append(mean_and_worst(found))
            yield (title, name, str(len(subject.few(size.few))), *cells)


def _observed(
    subject: Subject, fact: Fact, n_steps: int, precision: torch.dtype
) -> float:
    """Differences of levels."""
    return _explained(subject, fact, iglens.Observed(), precision)


def _gradient(rule: Rule) -> Missed:
    """The gradient, integrated by a rule."""

    def missed(
        subject: Subject, fact: Fact, n_steps: int, precision: torch.dtype
    ) -> float:
        return _explained(subject, fact, iglens.Gradient(n_steps, rule), precision)

    return missed


def _idgi(subject: Subject, fact: Fact, n_steps: int, precision: torch.dtype) -> float:
    """IDGI, which shares observed changes over dimensions."""
    found = iglens.compare(
        subject.decoder,
        list(fact.ids),
        target=fact.target,
        methods="idgi",
        n_steps=n_steps,
        precision=precision,
        audit=False,
    )
    (summary,) = found.table
    return summary.error


def _explained(
    subject: Subject,
    fact: Fact,
    estimator: iglens.Observed | iglens.Gradient,
    precision: torch.dtype,
) -> float:
    """What an attribution reports of itself."""
    found = iglens.explain(
        subject.decoder,
        list(fact.ids),
        target=fact.target,
        estimator=estimator,
        precision=precision,
        diagnostics=False,
    )
    return float(found.completeness[0])


ESTIMATORS: dict[str, Missed] = {
    "observed": _observed,
    "IDGI": _idgi,
    **{f"gradient, {rule}": _gradient(rule) for rule in get_args(Rule)},
}

SECTION = Section(
    "completeness",
    lambda size: (
        "estimator",
        "readout",
        "prompts",
        *(f"{n} steps" for n in size.steps),
    ),
    _rows,
)
