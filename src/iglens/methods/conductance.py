r"""Layer Conductance: gradients in a layer, integrated along the path of inputs.

Token embeddings grow from zero to what they are; with `F` the level and `h_l(a)` the
whole residual stream of a layer, all tokens, at scale `a`,

    conductance_l = int <dF/dh_l(a), dh_l/da> da = F(1) - F(0).

The residual stream is a full cut of the network, so this is the *whole* change for
every layer: the sum over layers counts it as often as there are layers, and what
differs between them is the error of the integral.

References:
    Dhamdhere, Sundararajan and Yan, "How Important Is a Neuron?", 2018,
    arXiv:1805.12233; Captum's `LayerConductance` for the first of the two rules.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..attribution import Gradient
from ..errors import UnsupportedModelError
from ..model.scaled_inputs import Passed, ScaledInputs, inner
from ..records.comparison import Contributions
from .case import AbstractMethod, Case
from .level import plain_level

Step = Callable[[Passed, Passed, int], float]
"""What one step between two passes gives a layer."""

_NOTE = (
    "the residual stream is a full cut, so every layer is given the whole change of "
    "{change:+.4g}; what differs between layers is the error of the integral"
)


@dataclass(frozen=True)
class CaptumConductance(AbstractMethod):
    """The rule that Captum uses: differences of states, gradients at the left.

    Between neighbouring Gauss-Legendre nodes, one more than steps; what lies before the
    first node and after the last is left out.
    """

    name: str = "conductance-captum"
    title: str = "conductance, Captum"

    def __call__(self, case: Case) -> Contributions:
        """One number per layer."""
        places = Gradient(case.n_steps + 1, "gauss-legendre").nodes[:, 0].tolist()
        return _conductance(case, places, _left)


@dataclass(frozen=True)
class TrapezoidConductance(AbstractMethod):
    """The trapezoid rule over the whole path, with weights that sum to one.

    Open at zero: norms without an offset are scale-free, so that the derivative at
    zero embeddings is of the order of one over the root of their eps, norm after norm.
    The first step takes the gradient at its right end alone.
    """

    name: str = "conductance"
    title: str = "conductance, trapezoid"

    def __call__(self, case: Case) -> Contributions:
        """One number per layer."""
        places = np.linspace(0, 1, case.n_steps + 1).tolist()
        return _conductance(case, places, _trapezoid)


def _left(before: Passed, after: Passed, layer: int) -> float:
    """`<g(left), h(right) - h(left)>`."""
    gradient = before.gradients[layer]
    return inner(gradient, after.states[layer]) - inner(gradient, before.states[layer])


def _trapezoid(before: Passed, after: Passed, layer: int) -> float:
    """`<(g(left) + g(right)) / 2, h(right) - h(left)>`; `g(right)` from zero."""
    left = after if before.scale == 0 else before
    pairs = (left.gradients[layer], after.gradients[layer])
    ends = [
        inner(g, after.states[layer]) - inner(g, before.states[layer]) for g in pairs
    ]
    return sum(ends) / 2


def _conductance(case: Case, places: Iterable[float], step: Step) -> Contributions:
    """The sum of all steps for every layer from 1, passes being held two at a time."""
    if case.decoder is None:
        raise UnsupportedModelError("Conductance runs the model, and there is none.")
    inputs = ScaledInputs(
        case.decoder, case.ids, lambda row: plain_level(row, case.target, case.unit)
    )
    layers = range(1, case.decoder.n_layers + 1)
    credits, known = np.zeros(len(layers)), dict[float, float]()
    for before, after in pairwise(map(inputs.at, places)):
        credits += [step(before, after, layer) for layer in layers]
        known |= {passed.scale: passed.value for passed in (before, after)}
    first, last = (
        known[at] if at in known else inputs.at(at).value for at in (0.0, 1.0)
    )
    change = last - first
    return Contributions(
        case.unit,
        tuple(layers),
        ("block",) * len(layers),
        credits,
        total=change * len(layers),
        start=first,
        notes=(_NOTE.format(change=change) + ".",),
    )
