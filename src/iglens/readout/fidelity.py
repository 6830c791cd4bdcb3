"""Is this readout the model's? Judged on whole distributions, with a diagnosis.

The explained token alone cannot tell: with the final norm applied twice most of the
vocabulary keeps its probability to within 1e-4 while the total variation is near 1.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..records.target import Target, Unit
from .abstract import AbstractReadout
from .linear import LinearReadout
from .measure import Measure, gap
from .streamed import MEMORY_BUDGET, TokenLogits, summarise

POWER_NEEDED = 10.0
"""A wrong state must miss by this many tolerances for the check to mean anything.

A tolerance is itself eight times the measured rounding. Total variation cannot exceed
1, so in bfloat16 (tolerance about 0.02) no state at all could miss by a hundred.
"""


MARGIN = 8.0
"""Tolerances are this many times what was measured on a short text."""


@dataclass(frozen=True)
class NoiseFloor:
    """Change of the model's own output that is only rounding.

    Measured by running the same tokens in another batch, and bounded from below by
    the resolution of the dtype. Changes of a level below it mean nothing.

    Attributes:
        probability: Largest change of any probability.
        log_probability: Largest change of a log-probability, in nats.
        logit: Largest change of a logit.
    """

    probability: float
    log_probability: float
    logit: float

    def of(self, target: Target, unit: Unit, vocab_size: int) -> float:
        """The floor of a target's level in a result made in `unit`.

        A contrast has two levels that may move apart. If every log-probability moves
        by `e`, then the entropy `H <= log V` and the divergence move by no more than
        `e (1 + log V)`. Of a user's scalar nothing is known: NaN.
        """
        if target.kind in ("entropy", "kl"):
            return self.log_probability * (1 + math.log(vocab_size))
        if target.kind == "scalar":
            return math.nan
        floors = {"probability": self.probability, "logit": self.logit}
        floor = floors.get(unit, self.log_probability)
        return 2 * floor if target.kind == "contrast" else floor


@dataclass(frozen=True)
class Tolerance:
    """How far two readings of *one* state may lie apart and still count as equal.

    Much finer than the noise floor in low precision: both read the same state, and
    only the rounding of the head may differ.

    Attributes:
        total_variation: Between whole distributions.
        log_probability: Between log-probabilities of a target, in nats.
        logit: Between its logits.
    """

    total_variation: float
    log_probability: float
    logit: float

    def of(self, measure: Measure) -> float:
        """The one for a measure."""
        return self.logit if measure == "logit" else self.total_variation


@dataclass(frozen=True, eq=False)
class Check:
    """The readout of some states beside the model's own logits.

    Attributes:
        missed: How far apart the two are, per row.
        ours: Logits of the wanted tokens as read, in the model's own dtype.
        own: The same in the model's own output.
    """

    missed: Float[Tensor, " rows"]
    ours: TokenLogits
    own: TokenLogits


@torch.no_grad()
def check(
    readout: AbstractReadout,
    states: Float[Tensor, "rows d_model"],
    own: Float[Tensor, "rows vocab"],
    tokens: Int[Tensor, "rows slots"],
    measure: Measure = "total_variation",
    *,
    memory_budget: int = MEMORY_BUDGET,
) -> Check:
    """Compare the readout of last states with the model's own logits."""
    step = rows_at_once(readout, memory_budget)
    pieces = []
    for start in range(0, len(states), step):
        rows = slice(start, start + step)
        ours = readout.logits(states[rows])
        pieces.append(
            Check(
                gap(ours, own[rows], measure),
                summarise(ours, tokens[rows]),
                summarise(own[rows], tokens[rows]),
            )
        )
    return Check(
        torch.cat([piece.missed for piece in pieces]),
        TokenLogits.joined([piece.ours for piece in pieces]),
        TokenLogits.joined([piece.own for piece in pieces]),
    )


def row_bytes(readout: AbstractReadout) -> int:
    """Bytes that comparing one row takes: six arrays over the vocabulary."""
    return readout.vocab_size * readout.precision.itemsize * 6


def rows_at_once(readout: AbstractReadout, memory_budget: int) -> int:
    """How many rows may be compared at once."""
    return max(1, memory_budget // row_bytes(readout))


def diagnose(
    readout: AbstractReadout,
    path: Float[Tensor, "points rows d_model"],
    own: Float[Tensor, "rows vocab"],
    tolerance: float,
    measure: Measure = "total_variation",
) -> str:
    """The likeliest reason why reading the last state misses the model's output.

    Args:
        readout: The readout that missed.
        path: States of a few rows along the path.
        own: The model's logits of the same rows.
        tolerance: Gap that counts as equal.
        measure: What the gap is measured in.

    Returns:
        One sentence.
    """

    def close(ours: Tensor, other: Tensor) -> bool:
        worst = gap(ours.double(), other.double(), measure).max()
        return bool(worst <= max(tolerance, 1e-6))

    final = readout.logits(path[-1])
    if not bool(torch.isfinite(path[-1]).all()):
        return "The last state is not finite."
    if isinstance(readout, LinearReadout):
        unnormed = _without_norm(readout, path[-1])
        if unnormed is not None and close(unnormed, own):
            return (
                "The last state already carries the final norm, so norming it again "
                "is wrong (in Transformers the last entry of `hidden_states` is "
                "normed); pass the output of the last block."
            )
    for back in range(2, len(path) + 1):
        if close(readout.logits(path[-back]), own):
            return (
                f"The state {back - 1} step(s) before the last one fits: the layers "
                "are off by one or out of order."
            )
    if len(own) > 1 and close(final[:-1], own[1:]):
        return "Each state fits the next row's logits: the positions are off by one."
    if len(own) > 1 and close(final[1:], own[:-1]):
        return "Each state fits the row before: the positions are off by one."
    return _logit_relation(final.double(), own.double(), close, measure)


def _without_norm(readout: LinearReadout, states: Tensor) -> Tensor | None:
    """Logits of states that are taken to be normed already, if their width fits."""
    unembed, bias = readout.weights()
    if unembed.shape[1] != states.shape[1]:
        return None
    return readout.post(
        torch.nn.functional.linear(states.to(unembed.dtype), unembed, bias)
    )


def _logit_relation(
    ours: Float[Tensor, "rows vocab"],
    own: Float[Tensor, "rows vocab"],
    close: Callable[[Tensor, Tensor], bool],
    measure: Measure,
) -> str:
    """How the readout's logits relate to the model's: scale, bias, cap or neither.

    A relation with one free number is told only of several numbers that obey it.
    """
    x, y, several = ours, own, own.numel() > 1
    if measure == "total_variation":  # which a shift of all logits does not change
        x, y = x - x.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)
        several = own.numel() - len(own) > 1
    scale = (x * y).sum() / (x * x).sum().clamp(min=1e-30)
    if several and close(x * scale, y):
        return (
            f"The logits differ by a factor of {float(scale):.6g}: a logit scale is "
            "missing."
        )
    shift = y - x
    if len(own) > 1 and close(x + shift.mean(0), y):
        return "The logits differ by one vector in all rows: a bias is missing."
    cap = _soft_cap(ours, own)
    if several and cap is not None and close(cap * torch.tanh(ours / cap), own):
        return f"The model's logits level off at {cap:.4g}: a soft-cap is missing."
    return (
        "No simple relation was found: something between the last block and the "
        "logits reads more than this state, or the state is of another run or layer."
    )


def _soft_cap(ours: Tensor, own: Tensor) -> float | None:
    """The `c` of `own = c tanh(ours / c)`, from where it bends most."""
    at = int(ours.abs().argmax())
    x, y = abs(float(ours.flatten()[at])), abs(float(own.flatten()[at]))
    if not 0 < y < x:
        return None
    low, high = y, 1e6 * x
    for _ in range(200):
        middle = (low * high) ** 0.5
        reached = middle * torch.tanh(torch.tensor(x / middle).double())
        low, high = (middle, high) if reached < y else (low, middle)
    return low
