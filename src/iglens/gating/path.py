r"""The gate path: what every gate adds while all of them open together.

    h_l = (1 - g) h_{l-1} + g block_l(h_{l-1}),    G_l = int_0^1 df/dg_l dt, g = t

for every block at once. `sum_l G_l` is the level of the model minus that of the
embedding, read as it is: the total of the credits, but with all that a block does
through later blocks. Half-gated models are off the distribution they were made for.

Integrated by Gauss-Kronrod rules. The panel that is worst is halved until both rules
agree on every gate and the sum gives the level's change; what is left of that is spread
evenly.
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
        apart: What the two rules differ by, at most over the gates.
        runs: Forward passes; those at the nodes are followed by a backward one.
    """

    effects: Float[Tensor, " columns"]
    intact: float
    removed: float
    closed: float
    apart: float
    runs: int


@dataclass(frozen=True, eq=False)
class _Panel:
    """A piece of the path, integrated.

    Attributes:
        left: Where it begins.
        right: Where it ends.
        before: Level where it begins.
        after: Level where it ends.
        found: What the finer rule gives, gate by gate.
        apart: What the two rules differ by.
    """

    left: float
    right: float
    before: float
    after: float
    found: Float[Tensor, " columns"]
    apart: Float[Tensor, " columns"]

    @classmethod
    def of(
        cls,
        subject: AbstractGated,
        left: float,
        right: float,
        before: float,
        after: float,
    ) -> "_Panel":
        """The piece between two places with known levels."""
        width = right - left
        slopes = subject.slopes(left + width * NODES)
        fine, coarse = (width * (rule @ slopes) for rule in (KRONROD, GAUSS))
        return cls(left, right, before, after, fine, (fine - coarse).abs())

    @property
    def missed(self) -> float:
        """Change of the level that the rule does not give."""
        return self.after - self.before - float(self.found.sum())

    @property
    def worst(self) -> float:
        """How much there is to gain from halving it."""
        return max(abs(self.missed), float(self.apart.max()))

    def halves(self, subject: AbstractGated) -> "list[_Panel]":
        """Both halves of it."""
        middle = (self.left + self.right) / 2
        [between] = _levels(subject, [middle])
        return [
            _Panel.of(subject, self.left, middle, self.before, between),
            _Panel.of(subject, middle, self.right, between, self.after),
        ]


def gate_path(
    subject: AbstractGated, tolerance: float = TOLERANCE, most_panels: int = MOST_PANELS
) -> GatePath:
    """Integrate along the path on which all gates open together.

    Args:
        subject: The level as a function of gates.
        tolerance: What the result may be off by, in the level's unit.
        most_panels: Panels to look at before what is left is taken as it is.
    """
    removed, intact = _levels(subject, [0.0, 1.0])
    panels, seen, runs = [_Panel.of(subject, 0.0, 1.0, removed, intact)], 1, 2
    while not _is_good(panels, tolerance) and seen + 2 <= most_panels:
        worst = max(panels, key=lambda panel: panel.worst)
        panels = [panel for panel in panels if panel is not worst]
        panels += worst.halves(subject)
        seen, runs = seen + 2, runs + 1
    total = torch.stack([panel.found for panel in panels]).sum(0)
    closed = intact - removed - float(total.sum())
    total += closed / len(total)
    runs += seen * len(NODES)
    return GatePath(total, intact, removed, closed, _apart(panels), runs)


def _is_good(panels: list[_Panel], tolerance: float) -> bool:
    """Whether the certificate is within the tolerance.

    What panels miss is added up without its sign: errors that cancel are errors.
    """
    missed = sum(abs(panel.missed) for panel in panels)
    return missed <= tolerance and _apart(panels) <= tolerance


def _apart(panels: list[_Panel]) -> float:
    """What the rules differ by, at most over the gates."""
    return float(torch.stack([panel.apart for panel in panels]).sum(0).max())


def _levels(subject: AbstractGated, places: list[float]) -> list[float]:
    """Levels where all gates are open so far."""
    gates = torch.tensor(places, dtype=torch.float64)[:, None]
    return subject.levels(gates.repeat(1, subject.n_columns)).tolist()
