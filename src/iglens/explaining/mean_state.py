"""The mean embedding over a corpus, as a baseline: what a text is like on average."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from ..errors import ArgumentError, ArtifactError
from ..model.decoder import Decoder
from ..records import ModelInfo
from ..storage.atomic import reason, replacing
from ..storage.fields import Fields
from ..storage.model_form import model_info

SCHEMA = "iglens.corpus-mean/1"
"""Name and version of the file. Fields may be added within a version, never renamed."""

_PIECE = 512


@dataclass(frozen=True, eq=False)
class CorpusMean:
    """Mean of `h_0` over all tokens of some texts but the first of each.

    Attributes:
        mean: The mean state.
        tokens: How many states it is the mean of.
        source: Where the texts come from, in words.
        model: The model whose embeddings these are.
    """

    mean: Float[np.ndarray, " d_model"]
    tokens: int
    source: str
    model: ModelInfo

    def check(self, decoder: Decoder) -> None:
        """Refuse the mean of another model.

        Raises:
            ArtifactError: If width, vocabulary or known weights differ.
        """
        own, width = decoder.info, decoder.readout.d_model
        if None in (own.weights_sha256, self.model.weights_sha256):
            known = (self.model.id, self.model.vocab_size, len(self.mean))
            same = known == (own.id, own.vocab_size, width)
        else:
            same = own.weights_sha256 == self.model.weights_sha256
        if same:
            return
        raise ArtifactError(
            f"This corpus mean ({len(self.mean)} numbers) is of {self.model.id}, not "
            f"of {own.id} ({width} numbers): its embeddings are others. Take it anew "
            "with `iglens.corpus_mean`, or pass the texts as `corpus:FILE.txt`."
        )

    def save(self, path: str | Path) -> None:
        """Write it as JSON, whole or not at all.

        Raises:
            OutputError: If the place is not writable.
        """
        document = {"schema": SCHEMA, **asdict(self), "mean": self.mean.tolist()}
        with replacing(Path(path)) as temporary:
            temporary.write_text(json.dumps(document, allow_nan=False))


def corpus_mean(
    decoder: Decoder, texts: Iterable[str | Sequence[int]], *, source: str = "texts"
) -> CorpusMean:
    """Mean of `h_0` over some texts, in float64.

    The first token of every text is left out: its state is often an outlier.

    Args:
        decoder: The model.
        texts: Texts or token ids; long ones are cut into pieces.
        source: Where they come from, for the record.

    Raises:
        ArgumentError: If they hold no second token.
    """
    total = torch.zeros(decoder.readout.d_model, dtype=torch.float64)
    count = 0
    size = min(_PIECE, decoder.context or _PIECE)
    for text in texts:
        for piece in decoder.encode_pieces(text, size):
            (states,) = decoder.states([piece], layers=[0])
            total += states[0, 1:].double().sum(0).cpu()
            count += len(piece) - 1
    if not count:
        raise ArgumentError(
            f"A corpus mean needs at least one text of two tokens; {source} has none."
        )
    return CorpusMean((total / count).numpy(), count, source, decoder.info)


def load_corpus_mean(path: str | Path) -> CorpusMean:
    """The mean that `CorpusMean.save` wrote.

    Raises:
        ArtifactError: If there is no such file, or it is no whole corpus mean.
    """
    try:
        document = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {reason(error)}.") from error
    except ValueError as error:
        raise ArtifactError(
            f"{path} cannot be read: it is no corpus mean ({error})."
        ) from error
    fields = Fields(document if isinstance(document, dict) else {})
    if fields.values.get("schema") != SCHEMA:
        raise ArtifactError(f"{path} cannot be read: it is no corpus mean of iglens.")
    try:
        mean = fields.floats("mean", (len(fields.entries("mean")),))
        return CorpusMean(
            mean,
            fields.integer("tokens"),
            fields.text("source"),
            model_info(fields.record("model")),
        )
    except ArtifactError as error:
        raise ArtifactError(f"{path} cannot be read: {error}.") from error
