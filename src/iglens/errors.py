"""Every exception this package raises on purpose.

IGLensError
├── ArgumentError          (also ValueError) an argument has an impossible value
│   └── TargetError        a target is not one token of this vocabulary
├── ArgumentTypeError      (also TypeError) an argument is of the wrong kind
├── ModelLoadError         no such model, no network, weights missing or not finite
├── UnsupportedModelError  the model has no verified per-position readout
├── FidelityError          the readout is not the model's own probability
├── NonFiniteError         states or logits hold NaN or infinity
├── ArtifactError          a file does not hold what was asked of it
└── OutputError            a result cannot be written where it was asked to go
"""


class IGLensError(Exception):
    """Base class; catch this to catch everything below."""


class ArgumentError(IGLensError, ValueError):
    """An argument has a value that cannot be meant."""


class TargetError(ArgumentError):
    """A target does not name a token of the model's vocabulary."""


class ArgumentTypeError(IGLensError, TypeError):
    """An argument is of a kind that cannot be used here."""


class ModelLoadError(IGLensError):
    """A model could not be found, fetched or read."""


class UnsupportedModelError(IGLensError):
    """The model has no per-position readout that could be verified.

    Attributes:
        tried: What was taken for the stack of blocks, by the name of the module that
            holds it, and why it is none; empty if the search did not get so far.
    """

    def __init__(self, message: str, tried: dict[str, str] | None = None) -> None:
        """Take the sentence, and the candidates with their reasons."""
        super().__init__(message)
        self.tried = dict(tried or {})


class FidelityError(IGLensError):
    """The readout of the last state is not the model's own distribution."""


class NonFiniteError(IGLensError):
    """States or logits hold NaN or infinity, so no credit means anything."""


class ArtifactError(IGLensError):
    """A file is corrupt, foreign, or of a version this package cannot read."""


class OutputError(IGLensError):
    """A result cannot be written to the place that was asked for."""
