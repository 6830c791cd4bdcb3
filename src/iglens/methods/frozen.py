r"""The final norm with its scale frozen at the last state: then logits are linear.

    N(h) = beta + G C h / r(h_L)

Direct Logit Attribution rests on it, and so does a variant of the logit lens.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UnsupportedModelError
from ..readout import LinearReadout
from ..readout.scaled_norm import ScaledNorm, scaled_norm
from .case import Case


@dataclass(frozen=True, eq=False)
class FrozenFinalNorm:
    """A final norm, its scale that of one state.

    Attributes:
        form: `beta + G C h / r(h)`.
        scale: `r(h_L)`.
    """

    form: ScaledNorm
    scale: float

    @classmethod
    def of(cls, case: Case) -> "FrozenFinalNorm":
        """The norm of a case's readout, frozen at its last state.

        Raises:
            UnsupportedModelError: If it is no linear map over a scale.
        """
        readout = case.linear
        before = case.evaluations.head  # probes of the norm pass no head
        states = case.states.double()
        form = scaled_norm(lambda h: readout.norm(h, torch.float64).double(), states)
        case.evaluations.head = before
        if form is None:
            raise UnsupportedModelError(
                "What stands before this model's head is no linear map over a scale: "
                "it cannot be frozen."
            )
        return cls(form, float(form.scale(states[-1])))

    def __call__(self, states: Float[Tensor, "points d_model"]) -> Tensor:
        """`beta + G C h / r`, in float64."""
        return self.form.offset + self.form.linear(states.double()) / self.scale

    def readout(self, case: Case) -> LinearReadout:
        """The case's readout with this norm in the place of its own."""
        frozen = replace(case.linear, norm=lambda states, dtype: self(states).to(dtype))
        counted = case.evaluations.counted(frozen)
        assert isinstance(counted, LinearReadout)  # it was one
        return counted
