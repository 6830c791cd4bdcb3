"""Every method by its name."""

from collections.abc import Sequence

from ..errors import ArgumentError
from .case import AbstractMethod
from .conductance import CaptumConductance, TrapezoidConductance
from .direct_logit import HeadDLA, LayerDLA, SublayerDLA
from .gate_path import GatePathEffects
from .gradient_displacement import GradientDisplacement
from .idgi import IDGI
from .ig_lens import GradientIGLens, ObservedIGLens, TunedIGLens
from .logit_lens import FrozenLogitLevels, LogitLevels, TunedLevels

METHODS: dict[str, AbstractMethod] = {
    method.name: method
    for method in (
        ObservedIGLens(),
        GradientIGLens(),
        TunedIGLens(),
        GatePathEffects(),
        LogitLevels(),
        FrozenLogitLevels(),
        TunedLevels(),
        LayerDLA(),
        SublayerDLA(),
        HeadDLA(),
        GradientDisplacement(),
        IDGI(),
        CaptumConductance(),
        TrapezoidConductance(),
    )
}
"""In the order of the table."""


def chosen_methods(names: str | Sequence[str]) -> list[AbstractMethod]:
    """Methods by their names: "all", "a,b" or a list, each once, in that order.

    Raises:
        ArgumentError: If a name is unknown, or there is none.
    """
    if names == "all":
        return list(METHODS.values())
    split = names.split(",") if isinstance(names, str) else names
    wanted = list(dict.fromkeys(name.strip() for name in split))
    unknown = [name for name in wanted if name not in METHODS]
    if unknown or not wanted:
        raise ArgumentError(
            f"`methods` names {unknown}; known are all, {', '.join(METHODS)}."
        )
    return [METHODS[name] for name in wanted]
