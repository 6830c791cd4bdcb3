"""Spearman's rank correlation, and how far its mean over texts is to be relied on."""

import numpy as np
from jaxtyping import Float

from .audit import Correlation

DRAWS = 2000
"""Times that texts are drawn again."""


def ranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Place of every value, from 1; equal values share the mean of their places.

    Example:
        >>> ranks(np.array([0.5, -1.0, 0.5, 2.0])).tolist()
        [2.5, 1.0, 2.5, 4.0]
    """
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[which]


def spearman(one: Float[np.ndarray, " n"], other: Float[np.ndarray, " n"]) -> float:
    """Pearson's correlation of the ranks; NaN if one side is constant or not finite.

    Example:
        >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 9.0, 4.0]))
        0.5
    """
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        return float("nan")
    a, b = (side - side.mean() for side in (ranks(one), ranks(other)))
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else float("nan")


def spearman_rows(
    one: Float[np.ndarray, "texts segments"], other: Float[np.ndarray, "texts segments"]
) -> Float[np.ndarray, " texts"]:
    """Spearman's correlation of every text."""
    return np.array([spearman(a, b) for a, b in zip(one, other, strict=True)])


def mean_of(values: Float[np.ndarray, " n"]) -> float:
    """Mean of the values that are known; NaN if none is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def interval(values: Float[np.ndarray, " texts"], seed: int) -> tuple[float, float]:
    """Bootstrap interval of the mean: 2.5% and 97.5% over texts drawn again.

    Texts without a value are left out. NaN for fewer than two.
    """
    known = values[np.isfinite(values)]
    if len(known) < 2:
        return float("nan"), float("nan")
    draws = np.random.default_rng(seed).integers(0, len(known), (DRAWS, len(known)))
    low, high = np.quantile(known[draws].mean(1), [0.025, 0.975])
    return float(low), float(high)


def correlation(
    method: str,
    numbers: Float[np.ndarray, "texts segments"],
    effects: Float[np.ndarray, "texts segments"],
    *,
    with_last: bool,
    nulls: Float[np.ndarray, " others"] | None = None,
    random: Float[np.ndarray, " texts"] | None = None,
    reason: str | None = None,
    seed: int,
) -> Correlation:
    """How a method's order of segments agrees with that of their effects.

    Args:
        method: Its name.
        numbers: Its numbers.
        effects: What happens without each segment.
        with_last: Whether the last layer is among the segments.
        nulls: The correlations of what cannot know the target.
        random: Those of a model with random weights.
        reason: Why there are no numbers of some text.
        seed: What the bootstrap draws from.
    """
    found = spearman_rows(numbers, effects)
    low, high = interval(found, seed)
    null, untaught = (
        float("nan") if others is None else mean_of(others)
        for others in (nulls, random)
    )
    return Correlation(
        method, with_last, found, mean_of(found), low, high, null, untaught, reason
    )
