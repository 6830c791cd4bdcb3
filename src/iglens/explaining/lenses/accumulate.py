"""Moments of every layer's states over some text, within a memory budget."""

from collections.abc import Iterator, Sequence

import torch

from ...model.decoder import Decoder
from ...model.loading.child import Progress
from .moments import Moments
from .text import Corpus, Piece

MEMORY = 2**31
"""Bytes for moments."""

_AT_ONCE = 1024
"""Tokens that share a forward pass; the states of all layers are held meanwhile."""


def groups_within(
    memory_budget: int, layers: Sequence[int], d_model: int
) -> list[tuple[int, ...]]:
    """Layers whose moments may be held at once; at least one in each group."""
    size = max(1, memory_budget // Moments.bytes_of(d_model))
    return [tuple(layers[at : at + size]) for at in range(0, len(layers), size)]


def accumulate(
    decoder: Decoder,
    corpus: Corpus,
    layers: Sequence[int],
    progress: Progress,
    moments: dict[int, Moments] | None = None,
) -> dict[int, Moments]:
    """Moments of some layers' states and the last ones, by layer.

    The first state of every piece is left out: it attends to nothing but itself, and in
    many models it is an outlier that would dominate the covariance.

    Args:
        decoder: The model.
        corpus: What it reads.
        layers: Layers to take.
        progress: Told how far it is.
        moments: What to add to; new ones if None.
    """
    last, done = decoder.n_layers, 0
    found = {} if moments is None else moments
    for batch in _batches(corpus.pieces):
        for states in decoder.states(batch, layers=[*layers, last]):
            final = states[-1, 1:]
            for layer, rows in zip(layers, states[:-1, 1:], strict=True):
                if layer not in found:
                    found[layer] = Moments(rows.shape[1], _place(rows.device))
                found[layer].add(rows, final)
            done += len(final)
        progress(_stage(layers, last), done, corpus.tokens)
    return found


def _stage(layers: Sequence[int], last: int) -> str:
    """What is being done, in words."""
    if len(layers) == last:
        return "reading states"
    return f"reading states of layers {layers[0]} to {layers[-1]}"


def _place(device: torch.device) -> torch.device:
    """Where to keep moments: with the states, unless there is no float64 there."""
    return torch.device("cpu") if device.type == "mps" else device


def _batches(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Pieces of like length together, so that little is filled up."""
    batch: list[Piece] = []
    for piece in sorted(pieces, key=len):
        if batch and (len(batch) + 1) * len(piece) > _AT_ONCE:
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch
