"""Between which two layers does the probability of a token become readable?"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what readers and type checkers see
    from .attribution import Gradient, Observed, Scalar, attribute, sensitivity
    from .auditing import audit
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
    from .examining import examine
    from .explaining import (
        CorpusMean,
        Prepared,
        Reader,
        corpus_mean,
        explain,
        explain_like,
        load_corpus_mean,
        prepare,
        replay,
    )
    from .explaining.lenses.evaluate import LensEvaluation, evaluate_lens
    from .explaining.lenses.file import load_lens
    from .explaining.lenses.fit import fit_lens
    from .explaining.lenses.polish import Polish
    from .gating import gates
    from .inside import Directions
    from .methods import compare
    from .model.declaration import Declaration
    from .model.decoder import Decoder
    from .model.generate import Sampling
    from .readout.lens import AffineLens, LogitLens
    from .readout.linear import LinearReadout
    from .records import ENTROPY, KL_TO_FINAL, Attribution, Examination, Segment, Target
    from .records.audit import Audit
    from .records.comparison import Comparison
    from .records.components import Components
    from .records.difference import Difference, diff
    from .records.effects import Effects
    from .records.replay import Replay
    from .trace import Trace

__version__ = "0.1.0"

_HOME = {
    "AffineLens": "readout.lens",
    "ArgumentError": "errors",
    "ArgumentTypeError": "errors",
    "ArtifactError": "errors",
    "Attribution": "records",
    "Audit": "records.audit",
    "Comparison": "records.comparison",
    "Components": "records.components",
    "CorpusMean": "explaining",
    "Declaration": "model.declaration",
    "Decoder": "model.decoder",
    "Depths": "depths",
    "Difference": "records.difference",
    "Directions": "inside",
    "ENTROPY": "records",
    "Effects": "records.effects",
    "Examination": "records",
    "FidelityError": "errors",
    "Gradient": "attribution",
    "IGLensError": "errors",
    "Interval": "depths",
    "KL_TO_FINAL": "records",
    "LensEvaluation": "explaining.lenses.evaluate",
    "LinearReadout": "readout.linear",
    "LogitLens": "readout.lens",
    "ModelLoadError": "errors",
    "NonFiniteError": "errors",
    "Observed": "attribution",
    "OutputError": "errors",
    "Polish": "explaining.lenses.polish",
    "Prepared": "explaining",
    "Reader": "explaining",
    "Replay": "records.replay",
    "Sampling": "model.generate",
    "Scalar": "attribution",
    "Segment": "records",
    "Target": "records",
    "TargetError": "errors",
    "Trace": "trace",
    "UnsupportedModelError": "errors",
    "attribute": "attribution",
    "audit": "auditing",
    "compare": "methods",
    "corpus_mean": "explaining",
    "diff": "records.difference",
    "evaluate_lens": "explaining.lenses.evaluate",
    "examine": "examining",
    "explain": "explaining",
    "explain_like": "explaining",
    "fit_lens": "explaining.lenses.fit",
    "gates": "gating",
    "load_corpus_mean": "explaining",
    "load_lens": "explaining.lenses.file",
    "prepare": "explaining",
    "replay": "explaining",
    "sensitivity": "attribution",
}

__all__ = [
    "ENTROPY",
    "KL_TO_FINAL",
    "AffineLens",
    "ArgumentError",
    "ArgumentTypeError",
    "ArtifactError",
    "Attribution",
    "Audit",
    "Comparison",
    "Components",
    "CorpusMean",
    "Declaration",
    "Decoder",
    "Depths",
    "Difference",
    "Directions",
    "Effects",
    "Examination",
    "FidelityError",
    "Gradient",
    "IGLensError",
    "Interval",
    "LensEvaluation",
    "LinearReadout",
    "LogitLens",
    "ModelLoadError",
    "NonFiniteError",
    "Observed",
    "OutputError",
    "Polish",
    "Prepared",
    "Reader",
    "Replay",
    "Sampling",
    "Scalar",
    "Segment",
    "Target",
    "TargetError",
    "Trace",
    "UnsupportedModelError",
    "attribute",
    "audit",
    "compare",
    "corpus_mean",
    "diff",
    "evaluate_lens",
    "examine",
    "explain",
    "explain_like",
    "fit_lens",
    "gates",
    "load_corpus_mean",
    "load_lens",
    "prepare",
    "replay",
    "sensitivity",
]


def __getattr__(name: str) -> object:
    """Import on first use, so that `iglens --help` does not wait for torch."""
    if name == "data":  # `iglens.data.prompts()`
        return importlib.import_module(".data", __name__)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value
