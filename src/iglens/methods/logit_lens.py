"""The logit lens: what the head reads from the state of every layer."""

from dataclasses import dataclass

from ..records.comparison import Reading
from .case import AbstractMethod, Case
from .frozen import FrozenFinalNorm
from .ig_lens import fitted


@dataclass(frozen=True)
class LogitLevels(AbstractMethod):
    """Every state through the model's own norm, with its own statistics."""

    name: str = "logit-lens"
    title: str = "logit lens"

    def __call__(self, case: Case) -> Reading:
        """`f(h_l)` of layers 1 to the last."""
        return Reading(case.unit, case.layers, case.levels(case.states[1:]))


@dataclass(frozen=True)
class FrozenLogitLevels(AbstractMethod):
    """Every state divided by the scale of the last one."""

    name: str = "logit-lens-frozen"
    title: str = "logit lens, frozen norm"

    def __call__(self, case: Case) -> Reading:
        """`f(h_l)` with the final norm's scale frozen at the last state.

        The other thing that goes by the name of logit lens: where the last state is
        much larger than the others, it acts on them like a high temperature.
        """
        readout = FrozenFinalNorm.of(case).readout(case)
        levels = case.levels(case.states[1:], readout)
        return Reading(case.unit, case.layers, levels)


@dataclass(frozen=True)
class TunedLevels(AbstractMethod):
    """Every state through the translator of its layer, then the head."""

    name: str = "tuned-lens"
    title: str = "fitted lens"

    def __call__(self, case: Case) -> Reading:
        """`f(T_l(h_l))` of layers 1 to the last."""
        lens = fitted(case)
        states = lens.translate(case.trace.states[1:], case.layers)[:, 0]
        levels = case.levels(states)
        return Reading(case.unit, case.layers, levels, lens.notes)
