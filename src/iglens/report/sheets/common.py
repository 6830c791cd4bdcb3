"""What pages of several records have in common: checks, origin, reading."""

from collections.abc import Sequence

import numpy as np

from ...records import Attribution, Provenance
from ..page.checks import Check, checks, origin

MOST_ROWS = 8
"""Rows that get charts and tables of their own; more would make a page too large."""

NOT_CAUSES = (
    "Credits are about reading, not about causes: a layer without credit may still "
    "have done decisive work that later layers make visible."
)
"""What every reader has to know."""


def readout_check(results: Sequence[Attribution]) -> Check:
    """Whether the readout is the model's own, of the worst of some results."""
    worst = max(results, key=lambda result: _fidelity(result))
    return checks(worst)[0]


def _fidelity(result: Attribution) -> float:
    """The worst row's; one that is not known is worse than any."""
    return float(np.nan_to_num(result.fidelity, nan=np.inf).max(initial=0.0))


def and_more(count: int) -> list[str]:
    """That some tokens are in the tables only."""
    if not count:
        return []
    return [f"And {count} more token{'s' * (count > 1)}, in the tables."]


def sides_origin(a: Provenance, b: Provenance) -> tuple[tuple[str, str], ...]:
    """Where both of two results come from; what they share is said once."""
    both = zip(origin(a), origin(b), strict=True)
    said: list[tuple[str, str]] = []
    for (name, one), (_, other) in both:
        if one == other:
            said.append((name, one))
        else:
            said += [(f"{name}, a", one), (f"{name}, b", other)]
    return tuple(said)
