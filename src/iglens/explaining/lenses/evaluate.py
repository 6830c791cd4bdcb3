"""Judging a lens on text that it was not fitted on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...errors import ArgumentError
from ...model.decoder import Decoder
from ...model.loading.child import Progress, silent
from ...readout import MEMORY_BUDGET
from ...readout.lens import AbstractLens, AffineLens, LogitLens
from ..choices import choose_layers
from .scores import (
    LensScores,
    Tally,
    log_probabilities,
    log_sum,
    rows_at_once,
    spread,
)
from .text import Corpus, Piece, check_distribution, encoded, generated

SEED = 1_000_001
"""Of the text that a lens is judged on, so that it is not the text of a fit."""


@dataclass(frozen=True)
class LensEvaluation:
    """The raw states and a lens, side by side.

    Attributes:
        lens: Name of the lens.
        layers: Layers that were read, ascending.
        tokens: Tokens they were read at.
        documents: Documents these are from.
        source: Where those come from.
        raw: Scores without a lens.
        fitted: Scores with it.
    """

    lens: str
    layers: tuple[int, ...]
    tokens: int
    documents: int
    source: str
    raw: LensScores
    fitted: LensScores

    def to_json(self) -> dict[str, Any]:
        """Everything, one entry per layer."""
        entries = [
            {"layer": layer}
            | {name: _entry(getattr(self, name), at) for name in ("raw", "fitted")}
            for at, layer in enumerate(self.layers)
        ]
        return {
            "schema": "iglens.lens_evaluation/1",
            "lens": self.lens,
            "tokens": self.tokens,
            "documents": self.documents,
            "source": self.source,
            "layers": entries,
        }


def _entry(scores: LensScores, at: int) -> dict[str, float | None]:
    """Scores of one layer; null where there is none."""
    values = {name: float(values[at]) for name, values in vars(scores).items()}
    return {
        name: v if v == v and abs(v) < 1e300 else None for name, v in values.items()
    }


def evaluate_lens(
    decoder: Decoder,
    lens: AbstractLens,
    texts: Iterable[str | Sequence[int]] | None = None,
    *,
    source: str = "given texts",
    tokens: int = 1024,
    seed: int = SEED,
    layers: str | Sequence[int] = "all",
    memory_budget: int = MEMORY_BUDGET,
    progress: Progress = silent,
) -> LensEvaluation:
    """Divergence, marginal bias and agreement of every layer, raw and through a lens.

    Args:
        decoder: The model.
        lens: Its lens.
        texts: Documents as text or token ids; None for text that the model writes.
            They should not be those of the fit.
        source: Where given texts come from, for the record.
        tokens: Tokens to read at. Every one costs two products with the unembedding
            per layer.
        seed: Of the text that the model writes.
        layers: "all" that the lens has, "1,5,30", a slice as "::4", or numbers.
        memory_budget: Bytes for rows of logits; the means of probabilities, two
            float64 numbers per layer and token of the vocabulary, come on top.
        progress: Told how far it is.

    Raises:
        ArgumentError: If there is no text.
    """
    if texts is None:
        corpus = generated(decoder, tokens, seed, progress)
    else:
        corpus = encoded(decoder, texts, tokens, source, progress)
    return evaluate_on(
        decoder,
        lens,
        corpus,
        tokens=tokens,
        layers=layers,
        memory_budget=memory_budget,
        progress=progress,
    )


def evaluate_on(
    decoder: Decoder,
    lens: AbstractLens,
    corpus: Corpus,
    *,
    tokens: int,
    layers: str | Sequence[int] = "all",
    memory_budget: int = MEMORY_BUDGET,
    progress: Progress = silent,
) -> LensEvaluation:
    """As `evaluate_lens`, on documents in token ids.

    Of more tokens than wanted, evenly spaced ones are read.
    """
    check_distribution(decoder)
    chosen = _layers(decoder, lens, layers)
    raw, fitted = scores_on(
        decoder,
        [LogitLens(), lens],
        corpus,
        chosen,
        tokens=tokens,
        memory_budget=memory_budget,
        progress=progress,
    )
    wanted = _places(corpus, tokens)
    return LensEvaluation(
        lens=lens.name,
        layers=chosen,
        tokens=sum(len(places) for _, _, places in wanted),
        documents=len({document for document, _, _ in wanted}),
        source=corpus.source,
        raw=raw,
        fitted=fitted,
    )


def scores_on(
    decoder: Decoder,
    lenses: Sequence[AbstractLens],
    corpus: Corpus,
    layers: Sequence[int],
    *,
    tokens: int,
    memory_budget: int,
    progress: Progress = silent,
) -> list[LensScores]:
    """Scores of several lenses at the same tokens.

    Raises:
        ArgumentError: If there is no text.
    """
    if not corpus.tokens:
        raise ArgumentError(
            f"The text ({corpus.source}) is empty: nothing to judge on."
        )
    readout, tallies = decoder.readout, [Tally(lens, layers) for lens in lenses]
    at_once = rows_at_once(readout, memory_budget)
    wanted, sums, done = _places(corpus, tokens), [], 0
    for document, piece, places in wanted:
        (states,) = decoder.states([piece], layers=[*layers, decoder.n_layers])
        for rows in states[:, places.to(states.device)].split(at_once, dim=1):
            final = log_probabilities(readout, rows[-1])
            for tally in tallies:
                tally.add(readout, rows[:-1], final, document)
            sums.append(log_sum(final))
            sums = [torch.stack(sums).logsumexp(0)]
            done += len(final)
        progress("judging", done, min(tokens, corpus.tokens))
    return [tally.scores(sums[0]) for tally in tallies]


def _layers(
    decoder: Decoder, lens: AbstractLens, layers: str | Sequence[int]
) -> tuple[int, ...]:
    """Layers to read: without the last, where every lens is the identity.

    Raises:
        ArgumentError: If that leaves none.
    """
    every = tuple(range(decoder.n_layers))
    known = lens.layers if isinstance(lens, AffineLens) else every
    wanted = choose_layers(layers, decoder.n_layers)
    chosen = tuple(layer for layer in known if wanted is None or layer in wanted)
    if not chosen:
        raise ArgumentError(
            f"`layers` {layers!r} chooses none of the layers this lens translates: "
            f"{list(known)}."
        )
    return chosen


def _places(corpus: Corpus, tokens: int) -> list[tuple[int, Piece, Tensor]]:
    """Document, piece, and indices of the tokens to read in it.

    Index 0 is left out, as in the fit.
    """
    picked, before = spread(corpus.tokens, tokens), 0
    found = []
    for document, pieces in enumerate(corpus.documents):
        for piece in pieces:
            inside = (picked >= before) & (picked < before + len(piece) - 1)
            if bool(inside.any()):
                found.append((document, piece, picked[inside] - before + 1))
            before += len(piece) - 1
    return found
