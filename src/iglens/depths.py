"""How deep in the network a target becomes readable: pure functions of levels.

Axis legend, used by every annotation in this package:

    rows        explained (position, target) pairs
    points      states on the path; the first is the baseline, the last the final
    segments    steps between neighbouring points, one fewer than points
    tokens      token ids whose logits are asked for
    d_model     width of the residual stream
    vocab       size of the vocabulary
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from .errors import ArgumentError

NOISE_MARGIN = 10.0
"""A change below this many noise floors has no depth."""


class Interval(NamedTuple):
    """The path layers between which something happened.

    Attributes:
        after: Last path layer before it; None when no path layer lies before.
        upto: First path layer at which it holds.
    """

    after: int | None
    upto: int


@dataclass(frozen=True)
class Depths:
    """Four answers to "at which depth?", and two measures of how they disagree.

    With `delta = final - base` and `s = sign(delta)`, in the unit of the levels:

    Attributes:
        onset_mass: First point where the cumulative absolute credit reaches half of
            its total (the paper's L*).
        onset_net: First point with `s * (level - base) >= |delta| / 2`.
        commit: Earliest point from which that inequality holds to the end.
        prediction_depth: Earliest point from which the target is the arg-max to the
            end; None where it is not the final arg-max.
        churn: `sum(|credit|) / |sum(credit)|`: 1 when nothing is taken back.
        overshoot: `max(0, max(s * (level - final)))`.

    The first three and `churn` are None where `|delta|` is below ten noise floors.
    Those that need a number that is not finite are None, and so are `onset_mass` and
    `churn` where the credits (of the gradient estimator) are, or add up to, nothing.
    """

    onset_mass: Interval | None
    onset_net: Interval | None
    commit: Interval | None
    prediction_depth: Interval | None
    churn: float | None
    overshoot: float | None


def depths(
    levels: Float[np.ndarray, " points"],
    credits: Float[np.ndarray, " segments"],
    top1: Bool[np.ndarray, " points"],
    layers: tuple[int | None, ...],
    *,
    noise_floor: float = 0.0,
) -> Depths:
    """Depths of one row.

    Args:
        levels: The target's level at every point, in the unit of interest.
        credits: The credit of every segment, in the same unit.
        top1: Whether the target is the readout's arg-max at every point; all False
            for a target that has no arg-max (a contrast, an entropy).
        layers: The path layer each point is the state of; None for a baseline that
            is no state of this path.
        noise_floor: Change of a level that is rounding, in the same unit.

    Returns:
        The depths; intervals are in path layers, so a coarse path gives wide ones.

    Raises:
        ArgumentError: If the four do not describe one path.

    References:
        Onset by mass: L* of arXiv:2606.29693. Prediction depth: Baldock et al. 2021,
        arXiv:2106.09647.
    """
    if not len(levels) == len(layers) == len(top1) == len(credits) + 1:
        raise ArgumentError(
            f"`levels` ({len(levels)}), `top1` ({len(top1)}) and `layers` "
            f"({len(layers)}) need one entry per point, `credits` ({len(credits)}) "
            "one fewer."
        )
    predicted = _interval(_holds_from(top1), layers)
    if not np.isfinite(levels).all():
        return Depths(None, None, None, predicted, None, None)
    change = float(levels[-1] - levels[0])
    sign = np.sign(change)
    overshoot = max(0.0, float((sign * (levels - levels[-1])).max()))
    if change == 0 or abs(change) < NOISE_MARGIN * noise_floor:
        return Depths(None, None, None, predicted, None, overshoot)
    half_net = sign * (levels - levels[0]) >= abs(change) / 2
    return Depths(
        onset_mass=_interval(_half_mass(credits), layers),
        onset_net=_interval(int(half_net.argmax()), layers),
        commit=_interval(_holds_from(half_net), layers),
        prediction_depth=predicted,
        churn=_churn(credits),
        overshoot=overshoot,
    )


def _half_mass(credits: Float[np.ndarray, " segments"]) -> int | None:
    """First point where the cumulative |credit| is half of all, or None."""
    mass = np.abs(credits).cumsum()
    if not 0 < mass[-1] < np.inf:
        return None
    return int((mass >= mass[-1] / 2).argmax()) + 1


def _churn(credits: Float[np.ndarray, " segments"]) -> float | None:
    """`sum(|credit|) / |sum(credit)|`, or None where that is no number."""
    net = abs(float(credits.sum()))
    return float(np.abs(credits).sum()) / net if 0 < net < np.inf else None


def _holds_from(condition: Bool[np.ndarray, " points"]) -> int | None:
    """First point from which the condition holds to the end, or None."""
    if not condition[-1]:
        return None
    failures = np.flatnonzero(~condition)
    return int(failures[-1]) + 1 if failures.size else 0


def _interval(point: int | None, layers: tuple[int | None, ...]) -> Interval | None:
    """The path layers around the step that ends at a point."""
    if point is None:
        return None
    upto = layers[point] if layers[point] is not None else layers[1]
    assert upto is not None  # only the baseline can be off the path
    return Interval(after=layers[point - 1] if point else None, upto=upto)
