"""IG-Lens: credits along the path through the hidden states, which add up."""

from dataclasses import dataclass

from ..attribution import AbstractEstimator, Gradient, Observed, attribute
from ..errors import ArgumentError
from ..readout.lens import AbstractLens
from ..records.comparison import Contributions
from .case import AbstractMethod, Case


@dataclass(frozen=True)
class ObservedIGLens(AbstractMethod):
    """The observed change of the level at every layer; see `iglens.attribute`."""

    name: str = "ig-lens"
    title: str = "IG-Lens"

    def __call__(self, case: Case) -> Contributions:
        """Differences of the readout's levels: they add up by construction."""
        return _credits(case, Observed())


@dataclass(frozen=True)
class GradientIGLens(AbstractMethod):
    """The same integral by the midpoint rule, as the paper computes it."""

    name: str = "ig-lens-gradient"
    title: str = "IG-Lens, gradient"

    def __call__(self, case: Case) -> Contributions:
        """`sum_s <grad f(h_s), h_l - h_(l-1)> / n` at the middles of `n` steps."""
        return _credits(case, Gradient(case.n_steps, "midpoint"))


@dataclass(frozen=True)
class TunedIGLens(AbstractMethod):
    """Observed changes of what a fitted lens reads."""

    name: str = "ig-lens-tuned"
    title: str = "IG-Lens, fitted lens"

    def __call__(self, case: Case) -> Contributions:
        """Differences of `f(T_l(h_l))`; they mix what blocks and translators did."""
        return _credits(case, Observed(), fitted(case))


def fitted(case: Case) -> AbstractLens:
    """The lens of a case.

    Raises:
        ArgumentError: If there is none.
    """
    if case.lens is None or case.lens.name == "logit":
        raise ArgumentError(
            "This needs a fitted lens: pass `lens` (`--lens FILE`, made with `iglens "
            "lens fit`)."
        )
    return case.lens


def _credits(
    case: Case, estimator: AbstractEstimator, lens: AbstractLens | None = None
) -> Contributions:
    """The credits of an attribution."""
    found = attribute(
        case.trace,
        case.target,
        lens=lens,
        unit=case.unit,
        estimator=estimator,
        diagnostics=False,
        strict=case.strict,
    )
    return Contributions(
        case.unit,
        found.layers,
        tuple(segment.part for segment in found.segments),
        found.credits[0],
        total=float(found.final[0] - found.baseline[0]),
        start=float(found.baseline[0]),
    )
