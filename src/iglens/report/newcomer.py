"""The first sentence that somebody reads who has never seen such a map."""

import numpy as np
from jaxtyping import Float

from ..records import Attribution
from .text import CHURN_TOLD, format_level, sentence, target_name

ENOUGH, NEARLY = 0.01, 0.9
"""Shares of a change at which it begins to be readable, and at which it nearly is."""


TINY = 1e-4
"""A probability below this is almost 0 to somebody who does not read exponents."""


def first_sentence(result: Attribution, row: int) -> str:
    """At which of how many layers a token becomes readable, without any jargon.

    The first layer named is that from which on at least 1% of the change is there to
    stay, the last that from which on it is 90%. Targets that are no tokens, changes
    that are rounding, and levels that come and go get the sentence everybody gets.
    """
    target, path = result.targets[row], result.by_layer
    depths = result.depths[row]
    plain = target.kind in ("token", "set") and result.units[row] == "probability"
    if not plain or depths.churn is None or depths.churn > CHURN_TOLD:
        return sentence(result, row)
    levels = path.levels[row].astype(np.float64)
    total = max(path.layers)
    first, last = (
        path.layers[max(0, stays(levels, share) - 1)] for share in (ENOUGH, NEARLY)
    )
    rises = levels[-1] >= levels[0]
    verb = "becomes readable" if rises else "is lost"
    where = f"at layer {first}" if first == last else f"at layers {first} to {last}"
    if first == last == 0:
        where = "at the embedding, before any of the layers,"
    start, end = (_level(float(x)) for x in (levels[0], levels[-1]))
    return (
        f"{target_name(target)} {verb} {where} of {total}: its probability goes from "
        f"{start} to {end}."
    )


def _level(value: float) -> str:
    """A probability; of a very small one also what that means."""
    said = format_level(value, "probability")
    return f"almost 0 ({said})" if 0 < value < TINY else said


def stays(levels: Float[np.ndarray, " points"], share: float) -> int:
    """First point from which on a share of the whole change is there to the end.

    Example:
        >>> stays(np.array([0.0, 0.5, 0.1, 0.6, 1.0]), 0.5)
        3
    """
    change = levels[-1] - levels[0]
    there = np.sign(change) * (levels - levels[0]) >= share * abs(change)
    failures = np.flatnonzero(~there)
    return int(failures[-1]) + 1 if failures.size else 0
