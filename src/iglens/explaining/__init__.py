"""What needs model and attribution together: from a prompt to a result.

The room is named apart from its function, which importing it would otherwise hide.
"""

from .again import explain_like
from .mean_state import CorpusMean, corpus_mean, load_corpus_mean
from .plan import Prepared, prepare
from .prompt import estimator_of, explain
from .reader import Reader
from .rerun import replay

__all__ = [
    "CorpusMean",
    "Prepared",
    "Reader",
    "corpus_mean",
    "estimator_of",
    "explain",
    "explain_like",
    "load_corpus_mean",
    "prepare",
    "replay",
]
