"""Text to fit or judge a lens on: whole documents, cut into pieces that can be run."""

import hashlib
import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch

from ...errors import ArgumentError, ArtifactError, UnsupportedModelError
from ...model.decoder import Decoder
from ...model.generate import Sampling, continuations
from ...model.loading.child import Progress, silent
from ...storage.atomic import reason

Piece = tuple[int, ...]
"""Token ids that are run together."""

PIECE = 512
"""Tokens of a piece at most: longer documents are cut, and stay one document."""

GENERATED = 128
"""Tokens of a text the model writes itself."""

_BATCH = 64
_START = 3


@dataclass(frozen=True)
class Corpus:
    """Documents as token ids.

    Attributes:
        documents: The pieces of every document.
        source: Where they come from, in words.
    """

    documents: tuple[tuple[Piece, ...], ...]
    source: str

    @property
    def pieces(self) -> list[Piece]:
        """All pieces, document by document."""
        return [piece for document in self.documents for piece in document]

    @property
    def tokens(self) -> int:
        """States to learn from: the first of every piece is left out."""
        return sum(len(piece) - 1 for piece in self.pieces)

    @property
    def sha256(self) -> str:
        """Hash over the token ids and where they are cut."""
        text = "\n".join(" ".join(map(str, piece)) for piece in self.pieces)
        return hashlib.sha256(text.encode()).hexdigest()

    def split(self, share: float, seed: int) -> tuple["Corpus", "Corpus"]:
        """Two corpora: the rest, and a random share of the documents, at least one.

        Raises:
            ArgumentError: If there is no document to spare.
        """
        count = max(1, round(share * len(self.documents)))
        if count >= len(self.documents):
            raise ArgumentError(
                f"The text ({self.source}) holds {len(self.documents)} document(s). "
                "Whole documents are held out to judge the lens, so at least 3 are "
                "needed: give more tokens, and separate documents by blank lines or as "
                "lines of a JSONL file."
            )
        order = list(range(len(self.documents)))
        random.Random(seed).shuffle(order)  # the same on every machine
        apart = set(order[:count])
        parts = [
            tuple(d for i, d in enumerate(self.documents) if (i in apart) is chosen)
            for chosen in (False, True)
        ]
        return Corpus(parts[0], self.source), Corpus(parts[1], self.source)


def documents_in(path: Path) -> Iterator[str]:
    """Documents of a text file.

    Those of a `.jsonl` file are the "text" fields of its lines; those of any other are
    what stands between blank lines.

    Raises:
        ArtifactError: At once if the file cannot be read as UTF-8; on the way if a line
            is no object with a text.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: other encodings, null bytes
        raise ArtifactError(f"{path} cannot be read: {reason(error)}.") from error
    if path.suffix.lower() != ".jsonl":
        return (part for part in re.split(r"\n\s*\n", content) if part.strip())
    return _lines(path, content)


def _lines(path: Path, content: str) -> Iterator[str]:
    """The texts of a JSONL file."""
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)["text"]
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f'Line {number} of {path} is no JSON object with a "text".'
            ) from error
        if not isinstance(text, str):
            raise ArtifactError(f'The "text" in line {number} of {path} is no text.')
        yield text


def encoded(
    decoder: Decoder,
    texts: Iterable[str | Sequence[int]],
    tokens: int,
    source: str,
    progress: Progress = silent,
) -> Corpus:
    """Documents from texts, in order, until there are `tokens` states.

    Args:
        decoder: The model, for its tokenizer.
        texts: Texts or token ids, one per document; read no further than needed.
        tokens: Where to stop.
        source: Where they come from, in words.
        progress: Told how many tokens there are.

    Raises:
        ArgumentError: If a text holds ids the model does not have.
    """
    limit = min(PIECE, decoder.context or PIECE)
    documents, found = [], 0
    for text in texts:
        cut = decoder.encode_pieces(text, limit) if len(text) else []
        pieces = tuple(tuple(piece) for piece in cut if len(piece) > 1)
        if not pieces:
            continue
        documents.append(pieces)
        found += sum(len(piece) - 1 for piece in pieces)
        progress("reading text", min(found, tokens), tokens)
        if found >= tokens:
            break
    return Corpus(tuple(documents), source)


def check_distribution(decoder: Decoder) -> None:
    """Refuse a head whose logits are of no distribution.

    A lens is fitted and judged by divergences of distributions. Those of such a head
    would all be 0, whatever the lens.

    Raises:
        ArgumentError: If the model rewards, or judges labels one by one.
    """
    if decoder.unit(None) == "logit":
        raise ArgumentError(
            f"The logits of {decoder.info.id} are of no distribution (a reward, or "
            "labels that are judged one by one), so no divergence says how good a lens "
            "is. Read the raw states: `--lens logit`."
        )


def generated(
    decoder: Decoder, tokens: int, seed: int, progress: Progress = silent
) -> Corpus:
    """Documents the model writes itself, sampled at temperature 1.

    They begin with the first tokens of short beginnings in many registers, which come
    with this package; without a tokenizer, with random tokens.

    Args:
        decoder: The model.
        tokens: States to learn from; the last batch may bring a few more.
        seed: Of the sampling; the same seed gives the same text on the same machine.
        progress: Told how many tokens there are.

    Raises:
        UnsupportedModelError: If the model cannot generate.
    """
    if getattr(decoder.model, "generation_config", None) is None:
        raise UnsupportedModelError(
            f"{type(decoder.model).__name__} cannot generate text of its own. Give "
            "some: `--text` or `--dataset`, in Python `texts`."
        )
    length = min(GENERATED, decoder.context or GENERATED)
    starts = _starts(decoder, length)
    documents: list[tuple[Piece, ...]] = []
    found, batch = 0, 0
    while found < tokens:
        needed = -(-(tokens - found) // (length - 1))
        some = [
            starts[(len(documents) + i) % len(starts)]
            for i in range(min(needed, _BATCH))
        ]
        sampling = Sampling(seed=seed * 1_000_003 + batch)
        room = length - len(some[0])
        said = continuations(decoder.model, torch.tensor(some), room, sampling)
        for start, ids in zip(some, said, strict=True):
            documents.append(((*start, *ids),))
            found += len(start) + len(ids) - 1
        batch += 1
        progress("generating text", min(found, tokens), tokens)
    return Corpus(tuple(documents), f"self-generated, seed {seed}")


def _starts(decoder: Decoder, length: int) -> list[list[int]]:
    """Beginnings of equal length, so that they share a batch without filling."""
    size = min(_START, length - 1)
    if decoder.tokenizer is None:
        source = torch.Generator().manual_seed(0)
        vocab = decoder.readout.vocab_size
        return torch.randint(vocab, (_BATCH, size), generator=source).tolist()
    lines = files("iglens.data").joinpath("starters.txt").read_text("utf-8")
    ids = [decoder.encode(line) for line in lines.splitlines()]
    return [one[:size] for one in ids if len(one) >= size]
