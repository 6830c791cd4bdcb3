r"""IDGI as published: each step's change, shared by squared gradients.

For a step from `x_j` to `x_(j+1)` of a path, with `d = f(x_(j+1)) - f(x_j)` and `g` the
gradient at `x_j`, dimension `i` gets `g_i^2 d / <g, g>`. The weights sum to 1, so that
a layer, which is a number of whole steps here, gets what `f` changed along it whatever
the gradients are: what IG-Lens says. IDGI tells dimensions apart, not layers.

References:
    Yang, Wang and Bilgic, "IDGI: A Framework to Eliminate Explanation Noise from
    Integrated Gradients", CVPR 2023, and the code published with it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..records import Unit
from ..records.comparison import Contributions
from .case import AbstractMethod, Case
from .level import gradients


@dataclass(frozen=True)
class IDGI(AbstractMethod):
    """Steps along the path through the hidden states, summed over dimensions."""

    name: str = "idgi"
    title: str = "IDGI"

    def __call__(self, case: Case) -> Contributions:
        """Each layer's steps; NaN, with a note, where a gradient is zero.

        Gradients are of the log-odds where the unit follows from them: the same
        direction, which is all that the weights depend on, without underflow.
        """
        n, count = case.n_steps, len(case.layers)
        states = case.states.to(case.trace.readout.precision)
        places = torch.arange(n, device=states.device).to(states.dtype) / n
        nodes = states[:-1, None] + places[:, None] * states.diff(dim=0)[:, None]
        unit: Unit = "logit" if case.unit == "logit" else "log_odds"
        path = torch.cat([nodes.flatten(0, 1), states[-1:]])
        values, slopes = gradients(case, path, unit)
        shares = idgi(slopes, values).view(count, n, -1)
        credits = shares.sum((1, 2)).cpu().numpy()
        lost = [layer for layer, c in zip(case.layers, credits, strict=True) if c != c]
        notes = (f"The gradient is zero in layers {lost}: 0/0.",) if lost else ()
        return Contributions(
            case.unit,
            case.layers,
            ("block",) * count,
            np.asarray(credits),
            total=float(values[-1] - values[0]),
            start=float(values[0]),
            notes=notes,
        )


def idgi(
    gradients: Float[Tensor, "points d_model"], values: Float[Tensor, " points"]
) -> Float[Tensor, "steps d_model"]:
    """What every dimension gets of every step; the last gradient is not used.

    Example:
        >>> idgi(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([0.0, 5.0]))
        tensor([[1., 4.]])
    """
    squares = gradients[:-1].square()
    return squares * (values.diff() / squares.sum(1))[:, None]
