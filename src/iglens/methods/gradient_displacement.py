"""Gradient times displacement: one slope for a whole layer."""

from dataclasses import dataclass

from ..attribution.estimator import slopes
from ..attribution.rows import resolve_rows
from ..records.comparison import Contributions
from .case import AbstractMethod, Case


@dataclass(frozen=True)
class GradientDisplacement(AbstractMethod):
    """What the slope at a layer's start says that its update will do.

    IG-Lens's gradient estimator with a single node at the left end.
    """

    name: str = "gradient-displacement"
    title: str = "gradient x displacement"

    def __call__(self, case: Case) -> Contributions:
        """`<grad f(h_(l-1)), h_l - h_(l-1)>` of every layer."""
        rows = resolve_rows(case.trace, case.target)
        states = case.states.to(case.trace.readout.precision)
        count = len(case.layers)
        credits = slopes(
            case.trace.readout,
            states[:-1],
            states.diff(dim=0),
            rows.tokens.expand(count, -1),
            rows.chosen.expand(count, -1),
            rows.against.expand(count, -1),
            case.unit,
        )
        first, last = case.levels(case.states[[0, -1]]).tolist()
        return Contributions(
            case.unit,
            case.layers,
            ("block",) * count,
            credits.double().cpu().numpy(),
            total=last - first,
            start=first,
        )
