"""Between which two layers does the probability of a token become readable?"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what readers and type checkers see
    from .attribution import Gradient, Observed, attribute
    from .depths import Depths, Interval
    from .errors import (
        ArgumentError,
        ArgumentTypeError,
        ArtifactError,
        FidelityError,
        IGLensError,
        ModelLoadError,
        NonFiniteError,
        OutputError,
        TargetError,
        UnsupportedModelError,
    )
    from .explaining import explain
    from .model.declaration import Declaration
    from .model.decoder import Decoder
    from .model.generate import Sampling
    from .readout.linear import LinearReadout
    from .records import Attribution, Segment, Target
    from .trace import Trace

__version__ = "0.1.0"

_HOME = {
    "ArgumentError": "errors",
    "ArgumentTypeError": "errors",
    "ArtifactError": "errors",
    "Attribution": "records",
    "Declaration": "model.declaration",
    "Decoder": "model.decoder",
    "Depths": "depths",
    "FidelityError": "errors",
    "Gradient": "attribution",
    "IGLensError": "errors",
    "Interval": "depths",
    "LinearReadout": "readout.linear",
    "ModelLoadError": "errors",
    "NonFiniteError": "errors",
    "Observed": "attribution",
    "OutputError": "errors",
    "Sampling": "model.generate",
    "Segment": "records",
    "Target": "records",
    "TargetError": "errors",
    "Trace": "trace",
    "UnsupportedModelError": "errors",
    "attribute": "attribution",
    "explain": "explaining",
}

__all__ = [
    "ArgumentError",
    "ArgumentTypeError",
    "ArtifactError",
    "Attribution",
    "Declaration",
    "Decoder",
    "Depths",
    "FidelityError",
    "Gradient",
    "IGLensError",
    "Interval",
    "LinearReadout",
    "ModelLoadError",
    "NonFiniteError",
    "Observed",
    "OutputError",
    "Sampling",
    "Segment",
    "Target",
    "TargetError",
    "Trace",
    "UnsupportedModelError",
    "attribute",
    "explain",
]


def __getattr__(name: str) -> object:
    """Import on first use, so that `iglens --help` does not wait for torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value
