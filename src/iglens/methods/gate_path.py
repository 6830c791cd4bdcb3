"""The gate path: what every layer adds while all of them open together."""

from dataclasses import dataclass

import torch

from ..errors import UnsupportedModelError
from ..gating import Gated, gate_path
from ..gating.subject import at_once
from ..model.intervene import Intervention
from ..records.comparison import Contributions
from .case import AbstractMethod, Case

_NOTE = (
    "an effect through later layers, no level of a readout; its sum was off by "
    "{closed:.1g} before that was spread over the layers, and its two rules differ by "
    "{apart:.1g} at most"
)


@dataclass(frozen=True)
class GatePathEffects(AbstractMethod):
    """The integral of the level's derivative by every gate; see `iglens.gates`."""

    name: str = "gate-path"
    title: str = "gate path"

    def __call__(self, case: Case) -> Contributions:
        """`G_l`: they add up to the model's level minus that without any block."""
        if case.decoder is None:
            raise UnsupportedModelError(
                "The gate path runs the model, and there is none."
            )
        subject = Gated(
            Intervention.of(case.decoder),
            torch.tensor(case.ids),
            case.target,
            case.unit,
            at_once(case.decoder, len(case.ids)),
            came_back=case.evaluations.came_back,
        )
        found = gate_path(subject)
        return Contributions(
            case.unit,
            tuple(range(1, case.decoder.n_layers + 1)),
            ("block",) * case.decoder.n_layers,
            found.effects.numpy(),
            total=found.intact - found.removed,
            start=found.removed,
            notes=(_NOTE.format(closed=abs(found.closed), apart=found.apart) + ".",),
        )
