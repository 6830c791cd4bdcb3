"""The identity of a model, read back from JSON."""

from ..records import ModelInfo
from .fields import Fields


def model_info(model: Fields) -> ModelInfo:
    """The model that `dataclasses.asdict` wrote.

    Raises:
        ArtifactError: If a field is missing or not of its kind.
    """
    return ModelInfo(
        id=model.text("id"),
        path=model.text_or_none("path"),
        revision=model.text_or_none("revision"),
        weights_sha256=model.text_or_none("weights_sha256"),
        dtype=model.text("dtype"),
        n_layers=model.integer("n_layers"),
        vocab_size=model.integer("vocab_size"),
        architecture=model.text("architecture"),
        note=model.text_or_none("note"),
    )
