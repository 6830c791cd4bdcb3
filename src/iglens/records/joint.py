"""A product of probabilities changes: whose share is which? Computed in logarithms.

For `P = prod_t p_t` a step from `P'` to `P` is shared over the factors. With
`d_t = log p_t - log p_t'` and the logarithmic mean `L(a, b) = (a - b) / (ln a - ln b)`,

    logarithmic   L(P, P') d_t
    product       (prod_{s<t} p_s) (p_t - p_t') (prod_{s>t} p_s')

Both add up to `P - P'`. The former treats all factors alike; the latter walks through
them in order, and with small `p'` leaves nearly everything to the last one.
"""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from ..errors import ArgumentError

Sharing = Literal["logarithmic", "product"]

SHARINGS: tuple[Sharing, ...] = get_args(Sharing)


def log_probabilities(
    levels: Float[np.ndarray, "tokens points"], unit: str
) -> Float[np.ndarray, "tokens points"]:
    """Natural log-probabilities of levels in another unit.

    From "probability" a level within 1e-16 of 1 becomes 0, and one below 1e-308 minus
    infinity; from the other two units nothing is lost.

    Raises:
        ArgumentError: If the unit does not fix a probability.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        if unit == "probability":
            return np.log(levels.astype(np.float64))
        if unit == "log_probability":
            return levels.astype(np.float64)
        if unit == "log_odds":
            return -np.logaddexp(0.0, -levels.astype(np.float64))
    raise ArgumentError(
        f"`unit` is {unit!r}, which does not say how probable a token is. Attribute in "
        "probability, log_probability or log_odds."
    )


def change(
    log_before: Float[np.ndarray, " *shape"], log_after: Float[np.ndarray, " *shape"]
) -> Float[np.ndarray, " *shape"]:
    """`exp(log_after) - exp(log_before)`, without losing a small difference.

    Example:
        >>> change(np.array([-700.0]), np.array([-700.0 + 1e-12])) > 0
        array([ True])
    """
    with np.errstate(invalid="ignore", under="ignore"):
        gap = np.where(log_after == log_before, 0.0, log_after - log_before)
        size = np.exp(np.maximum(log_before, log_after)) * -np.expm1(-np.abs(gap))
        return np.copysign(size, gap)


def shares(
    before: Float[np.ndarray, "tokens steps"],
    after: Float[np.ndarray, "tokens steps"],
    sharing: str,
) -> Float[np.ndarray, "tokens steps"]:
    """What each token contributes to the change of the product of all.

    Args:
        before: Log-probabilities where each step starts.
        after: Log-probabilities where it ends.
        sharing: One of `SHARINGS`.

    Returns:
        Probabilities that add up to the change of the product; NaN in steps with a
        logarithm that is not finite.

    Raises:
        ArgumentError: If there is no such sharing.
    """
    if sharing not in SHARINGS:
        raise ArgumentError(
            f"`sharing` is {sharing!r}; known are {', '.join(SHARINGS)}."
        )
    finite = np.isfinite(before).all(0) & np.isfinite(after).all(0)
    rule = _logarithmic if sharing == "logarithmic" else _in_order
    found = rule(np.where(finite, before, 0.0), np.where(finite, after, 0.0))
    return np.where(finite, found, np.nan)


def _logarithmic(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """`L(P, P') d_t`: the larger of the two times `(1 - e^-|D|) / |D|` times `d_t`."""
    first, last = before.sum(0), after.sum(0)
    gap = np.abs(last - first)
    with np.errstate(invalid="ignore", under="ignore"):
        mean = np.where(gap == 0, 1.0, -np.expm1(-gap) / gap)
        return np.exp(np.maximum(first, last)) * mean * (after - before)


def _in_order(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The product path: token 1 moves first, then token 2, and so on."""
    none = np.zeros_like(before[:1])
    moved = np.concatenate([none, after.cumsum(0)[:-1]])  # the tokens before this one
    waiting = np.concatenate([before[::-1].cumsum(0)[::-1][1:], none])  # after it
    with np.errstate(under="ignore"):
        return np.exp(moved + waiting) * change(before, after)
