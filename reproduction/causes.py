"""How far the order of layers agrees with what happens without them."""

from collections.abc import Iterator, Sequence

import iglens

from .section import Row, Section, Size
from .subjects import Fact, Subject

METHODS = ("ig-lens-tuned", "logit-lens-frozen", "dla", "gradient-displacement")
"""Whose numbers are asked for besides credits and sizes of updates; the others give the
same as these, or the same to every layer."""


def _rows(subject: Subject, size: Size) -> Iterator[Row]:
    """Every method's mean rank correlation, with its bootstrap interval.

    The gate path takes a hundred runs and more for a prompt, so it has fewer; credits
    are then told for the same prompts again.
    """
    lens, facts = subject.lens, subject.facts
    yield from _correlations(
        _audit(subject, facts, size, methods=METHODS, lens=lens, nulls="both"),
        len(facts),
    )
    some = facts[: size.paths]
    yield from _correlations(
        _audit(subject, some, size, gates=True, nulls="none"), len(some), "update size"
    )


def _audit(
    subject: Subject, facts: Sequence[Fact], size: Size, **options: object
) -> iglens.Audit:
    """Every block skipped, at all tokens."""
    return iglens.audit(
        subject.decoder,
        [list(fact.ids) for fact in facts],
        target=[fact.target for fact in facts],
        seed=size.seed,
        **options,
    )


def _correlations(
    audit: iglens.Audit, n_prompts: int, without: str | None = None
) -> Iterator[Row]:
    """A line for every method, but one."""
    found = {(each.method, each.with_last): each for each in audit.correlations}
    for method in dict.fromkeys(name for name, _ in found):
        if method == without:
            continue
        both = [found[method, with_last] for with_last in (True, False)]
        yield (
            method,
            str(n_prompts),
            *(f"{each.mean:+.2f} [{each.low:+.2f}, {each.high:+.2f}]" for each in both),
            *(_known(each.null) for each in both),
            *(_known(each.random) for each in both),
        )


def _known(value: float) -> str:
    """A correlation; nothing where there is none."""
    return "" if value != value else f"{value:+.2f}"


SECTION = Section(
    "audit",
    lambda size: (
        "numbers",
        "prompts",
        "all layers",
        "without the last",
        "other targets",
        "without the last",
        "random weights",
        "without the last",
    ),
    _rows,
)
