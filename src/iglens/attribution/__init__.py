"""From states to credits: path, baseline, estimator, and the one verb `attribute`."""

from .attribute import attribute, attribute_many
from .baseline import BASELINES, Baseline
from .estimator import AbstractEstimator, Gradient, Observed
from .flow import flows
from .interaction import interaction
from .promotion import promotion
from .scalar import Scalar
from .sensitivity import attribute_averaged, attribute_from, sensitivity

__all__ = [
    "BASELINES",
    "AbstractEstimator",
    "Baseline",
    "Gradient",
    "Observed",
    "Scalar",
    "attribute",
    "attribute_averaged",
    "attribute_from",
    "attribute_many",
    "flows",
    "interaction",
    "promotion",
    "sensitivity",
]
