"""The state of a polish on disk: killed at any time, the same call goes on from it."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...errors import ArtifactError
from ...readout.lens import AffineLens
from ...storage.atomic import reason, replacing
from ...storage.fields import Fields
from ...storage.plain import plain
from .file import info_from
from .parts import Parts
from .polish import Polisher
from .text import Corpus

_SCHEMA = "iglens.lens-polish/1"
_KEY = "iglens"
SECONDS = 60.0
"""Time between two checkpoints, at least."""

_TENSORS = ("weight", "bias", "velocity_weight", "velocity_bias")


@dataclass(frozen=True)
class Checkpoint:
    """A polish as it was left.

    Attributes:
        step: Steps that were taken.
        lens: The translators after these, with the record of the fit they began at.
        velocity: Momentum of weights and biases.
        parts: The text.
    """

    step: int
    lens: AffineLens
    velocity: tuple[Tensor, Tensor]
    parts: Parts


class Saver:
    """Writes the state of a polish now and then.

    Attributes:
        path: The file.
    """

    def __init__(
        self,
        path: Path,
        asked: Mapping[str, object],
        polisher: Polisher,
        lens: AffineLens,
        parts: Parts,
    ) -> None:
        """Take what does not change while polishing, and start the clock."""
        assert lens.info is not None  # a fit has it
        self.path, self._polisher = path, polisher
        self._last = time.monotonic()
        self._header = {
            "schema": _SCHEMA,
            "asked": plain(asked),
            "n_layers": lens.n_layers,
            "layers": list(lens.layers),
            "seed": parts.seed,
            "source": parts.fit.source,
            "documents": {
                name: getattr(parts, name).documents
                for name in ("fit", "choice", "held_out")
            },
            "info": plain(asdict(lens.info)),
        }

    def __call__(self) -> None:
        """Write, if it is time."""
        if time.monotonic() - self._last >= SECONDS:
            self.write()
            self._last = time.monotonic()

    def write(self) -> None:
        """Write the state as it is.

        Raises:
            OutputError: If the place is not writable.
        """
        polisher = self._polisher
        tensors = (polisher.weight, polisher.bias, *polisher.velocity)
        text = json.dumps(self._header | {"step": polisher.step})
        with replacing(self.path) as temporary:
            save_file(
                dict(zip(_TENSORS, tensors, strict=True)), temporary, {_KEY: text}
            )


def read_checkpoint(path: Path, asked: Mapping[str, object]) -> Checkpoint | None:
    """The polish in a file, or None if there is no file.

    Args:
        path: The file.
        asked: What the fit was called with: it must be what it is called with now.

    Raises:
        ArtifactError: If it is damaged, or that of another call.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            fields = Fields(json.loads((file.metadata() or {})[_KEY]))
            tensors = [file.get_tensor(name) for name in _TENSORS]
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {reason(error)}.") from error
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{path} is no checkpoint of a polish ({error}). Remove it to start anew."
        ) from error
    _check_asked(path, fields, plain(asked))
    lens = AffineLens(
        "ridge",
        fields.integer("n_layers"),
        fields.integers("layers"),
        tensors[0],
        tensors[1],
        info_from(fields.record("info")),
    )
    return Checkpoint(
        fields.integer("step"), lens, (tensors[2], tensors[3]), _parts(fields)
    )


def _check_asked(path: Path, fields: Fields, asked: dict[str, Any]) -> None:
    """Refuse the checkpoint of another call."""
    theirs = fields.record("asked").values
    if fields.text("schema") != _SCHEMA or set(theirs) != set(asked):
        raise ArtifactError(f"{path} is a checkpoint of another version of iglens.")
    if other := [name for name in asked if theirs[name] != asked[name]]:
        name = other[0]
        raise ArtifactError(
            f"{path} is the checkpoint of another fit: `{name}` was {theirs[name]!r} "
            f"and is {asked[name]!r}. Call it as before, or remove the file."
        )


def _parts(fields: Fields) -> Parts:
    """The text."""
    source, stored = fields.text("source"), fields.record("documents")
    fit, choice, held_out = (
        Corpus(
            tuple(
                tuple(tuple(piece) for piece in document)
                for document in stored.entries(name)
            ),
            source,
        )
        for name in ("fit", "choice", "held_out")
    )
    return Parts(fit, choice, held_out, fields.integer("seed"))
