"""Where a model was loaded from, and what a record of it needs."""

from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

from torch import nn

from .. import __version__
from ..readout import AbstractReadout
from ..records import ModelInfo


@dataclass(frozen=True)
class Source:
    """Where a model was loaded from.

    Attributes:
        id: Name it was asked for by.
        path: Local folder or file of its weights, if known.
        revision: Commit of the hub repository, if known.
        weights_sha256: Hash over its weight files, if known.
        note: What a reader must know about the weights.
        warnings: What a user must know about the checkpoint.
    """

    id: str
    path: str | None = None
    revision: str | None = None
    weights_sha256: str | None = None
    note: str | None = None
    warnings: tuple[str, ...] = ()

    def info(
        self, model: nn.Module, readout: AbstractReadout, n_layers: int
    ) -> ModelInfo:
        """Identity of the model that was loaded from here."""
        return ModelInfo(
            id=self.id,
            path=self.path,
            revision=self.revision,
            weights_sha256=self.weights_sha256,
            dtype=str(readout.dtype).removeprefix("torch."),
            n_layers=n_layers,
            vocab_size=readout.vocab_size,
            architecture=type(model).__name__,
            note=self.note,
        )


def versions() -> dict[str, str]:
    """Versions of the packages that a number depends on."""
    others = {name: version(name) for name in ("torch", "transformers")}
    return {"iglens": __version__, **others}


def now() -> str:
    """UTC time in ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
