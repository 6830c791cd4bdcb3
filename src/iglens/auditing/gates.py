r"""The gate path: what every gate adds while all of them open together.

    h_l = (1 - g) h_{l-1} + g block_l(h_{l-1}),    G_l = int_0^1 df/dg_l dt, g = t

for every block at once. `sum_l G_l` is the level of the model minus that of the
embedding, read as it is: the total of the credits, but with all that a block does
through later blocks. Half-gated models are off the distribution they were made for.

Integrated by Gauss-Kronrod rules, panels halved until both rules agree on every gate
and the sum gives the level's change over the panel; what is left is spread evenly.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..attribution.integral.quadrature import GAUSS, KRONROD, NODES
from .subject import AbstractGated

TOLERANCE = 1e-4
"""What the two rules may differ by, and the sum be off by, in the level's unit."""

MOST_PANELS = 64
"""Panels that are looked at, at most."""


@dataclass(frozen=True, eq=False)
class GatePath:
    """The integral for one text.

    Attributes:
        effects: What every gate adds; adds up to `intact - removed`.
        intact: Level with all gates open.
        removed: Level with all gates closed.
        closed: The sum's error before it was spread over the gates.
        apart: What the two rules differ by, at most.
        runs: Forward passes; those at the nodes are followed by a backward one.
    """

    effects: Float[Tensor, " columns"]
    intact: float
    removed: float
    closed: float
    apart: float
    runs: int


def gate_path(
    subject: AbstractGated, tolerance: float = TOLERANCE, most_panels: int = MOST_PANELS
) -> GatePath:
    """Integrate along the path on which all gates open together.

    Args:
        subject: The level as a function of gates.
        tolerance: What the result may be off by, in the level's unit.
        most_panels: Panels to look at before what is left is taken as it is.
    """
    total = torch.zeros(subject.n_columns, dtype=torch.float64)
    apart, seen, runs = torch.zeros_like(total), 0, 2
    removed, intact = _levels(subject, [0.0, 1.0])
    waiting = [(0.0, 1.0, removed, intact)]
    while waiting:
        left, right, before, after = waiting.pop()
        width, seen = right - left, seen + 1
        slopes = subject.slopes(left + width * NODES)
        runs += len(NODES)
        fine, gauss = (width * (rule @ slopes) for rule in (KRONROD, GAUSS))
        limit = tolerance * width**0.5 / 2
        missed = abs(float(fine.sum()) - (after - before))
        good = missed <= limit and float((fine - gauss).abs().max()) <= limit
        if good or seen + len(waiting) >= most_panels:
            total, apart = total + fine, apart + (fine - gauss).abs()
            continue
        middle = (left + right) / 2
        [between] = _levels(subject, [middle])
        runs += 1
        waiting += [(left, middle, before, between), (middle, right, between, after)]
    closed = intact - removed - float(total.sum())
    total += closed / len(total)
    return GatePath(total, intact, removed, closed, float(apart.max()), runs)


def _levels(subject: AbstractGated, places: list[float]) -> list[float]:
    """Levels where all gates are open so far."""
    gates = torch.tensor(places, dtype=torch.float64)[:, None]
    return subject.levels(gates.repeat(1, subject.n_columns)).tolist()
