"""Promotion and competition, temperature and preference: log-odds taken apart."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..readout import MEMORY_BUDGET, AbstractReadout, TokenLogits, read
from ..readout.lens import AbstractLens
from ..readout.observers import Moments
from ..readout.streamed import Normaliser, block_width
from ..readout.target import inside, margin
from ..records import Flag, Promotion
from ..trace import Trace
from .baseline import BaselineLike
from .chunk import Chunk, chunks, points_at_once
from .judged import judged
from .rows import Targets


def promotion(
    trace: Trace,
    targets: Targets = None,
    *,
    layers: Sequence[int] | None = None,
    baseline: BaselineLike = "embedding",
    lens: AbstractLens | None = None,
    precision: torch.dtype | None = None,
    strict: bool = True,
    memory_budget: int = MEMORY_BUDGET,
) -> Promotion:
    """Split every layer's credit in log-odds, in two ways.

    By whose logits moved: the target's (promotion) or its rivals' (competition),
    relative to the mean of the vocabulary. And by how all of them moved: their spread
    (temperature) or their direction (preference). Two streamed passes over the
    vocabulary; see `iglens.records.Promotion` for the conventions.

    Args:
        trace: States, and the model's own logits to verify them by.
        targets: Tokens or sets; None for the tokens the text has there.
        layers: Layers the path stops at; None for all that were traced.
        baseline: Where the path starts; see `attribute`.
        lens: What every state is read through; its changes are part of the credits.
        precision: Dtype of the readout; None for float32 at least.
        strict: Refuse what cannot be verified instead of flagging it.
        memory_budget: Bytes that reading may hold.

    Returns:
        One row per (position, target), in log-odds.

    Raises:
        FidelityError: If reading the last states misses the model's own logits.
        NonFiniteError: If a state is not finite.
        ArgumentError: If an argument does not fit the trace, or a target is no token
            or set.
    """
    asked = judged(
        trace,
        targets,
        layers=layers,
        baseline=baseline,
        lens=lens,
        unit="log_odds",
        precision=precision,
        strict=strict,
        memory_budget=memory_budget,
    )
    at_once = points_at_once(asked.readout, memory_budget)
    pieces = [
        _read_chunk(asked.readout, chunk, memory_budget)
        for chunk in chunks(asked.path, asked.rows, at_once)
    ]
    found = {name: np.concatenate([p[name] for p in pieces]) for name in pieces[0]}
    return Promotion(asked.subject(_flags(found)), **found)


def _read_chunk(
    readout: AbstractReadout, chunk: Chunk, memory_budget: int
) -> dict[str, np.ndarray]:
    """Levels of all points, and of every segment's mixtures of scale and direction."""
    states, tokens = chunk.flat_states, chunk.flat_tokens
    moments = Moments(len(states), states.device)
    found = read(
        readout, states, tokens, observers=[moments], memory_budget=memory_budget
    )
    points, paths = chunk.states.shape[:2]
    mean, spread = moments.mean.view(points, paths), moments.spread.view(points, paths)
    own = _of_rows(chunk, found)
    chosen = chunk.chosen.repeat(points, 1)
    level = margin(own, chosen).view(points, -1)
    centre = mean[:, chunk.place]
    stretched, shrunk = (
        margin(_of_rows(chunk, mixed), chunk.chosen.repeat(points - 1, 1))
        for mixed in _mixed(readout, chunk, spread, memory_budget)
    )
    arrays = {
        "levels": level,
        "own": inside(own, chosen).view(points, -1) - centre,
        "rivals": _outside(own, chosen).view(points, -1) - centre,
        "mean": centre,
        "spread": spread[:, chunk.place],
    }
    arrays |= _orders(
        level, stretched.view(points - 1, -1), shrunk.view(points - 1, -1)
    )
    return {
        name: values.T.contiguous().cpu().numpy() for name, values in arrays.items()
    }


def _of_rows(chunk: Chunk, found: TokenLogits) -> TokenLogits:
    """What was read at some points of all paths, for every row that reads it."""
    parts = (found.logits, found.rest, found.rest_max)
    return TokenLogits(*(chunk.of_rows(part).flatten(0, 1) for part in parts))


def _outside(
    read: TokenLogits, chosen: Bool[Tensor, "points slots"]
) -> Float[Tensor, " points"]:
    """Log-sum-exp of the logits of everything but the target."""
    others = read.logits.masked_fill(chosen, -torch.inf).logsumexp(1)
    return torch.logaddexp(read.rest, others)


def _mixed(
    readout: AbstractReadout,
    chunk: Chunk,
    spread: Float[Tensor, "points paths"],
    memory_budget: int,
) -> tuple[TokenLogits, TokenLogits]:
    """Every segment's start at the scale of its end, and its end at that of its start.

    Equals `read` of logits that are multiplied by the ratio of the spreads. They need
    not be centred for that: log-odds do not feel a constant.
    """
    paths = spread.shape[1]
    tokens, ratio = chunk.flat_tokens, spread[1:] / spread[:-1]
    starts = _Rescaled(tokens[:-paths], ratio.flatten())
    ends = _Rescaled(tokens[paths:], (1 / ratio).flatten())
    projection = readout.project(chunk.flat_states)
    wanted = projection.at(tokens)
    width = block_width(readout, len(tokens), memory_budget // 3)
    for block in projection.blocks(width):
        starts.consume(block.logits[:-paths], block.start)
        ends.consume(block.logits[paths:], block.start)
    return starts.result(wanted[:-paths]), ends.result(wanted[paths:])


class _Rescaled:
    """Logits with another spread, put through the normaliser."""

    def __init__(
        self,
        tokens: Int[Tensor, "points slots"],
        factor: Float[Tensor, " points"],
    ) -> None:
        """Start with no token seen."""
        self._factor = factor[:, None]
        self._normaliser = Normaliser(tokens)

    def consume(self, logits: Float[Tensor, "points block"], start: int) -> None:
        """Add one block, which is left as it is."""
        self._normaliser.consume(logits * self._factor.to(logits.dtype), start)

    def result(self, wanted: Float[Tensor, "points slots"]) -> TokenLogits:
        """What `read` would give, and the wanted logits rescaled as the others are."""
        normaliser = self._normaliser
        return TokenLogits(wanted * self._factor, normaliser.rest, normaliser.rest_max)


def _orders(
    level: Float[Tensor, "points rows"],
    stretched: Float[Tensor, "segments rows"],
    shrunk: Float[Tensor, "segments rows"],
) -> dict[str, Tensor]:
    """Temperature and preference, averaged over which of them changes first.

    Args:
        level: Level at every point: scale and direction its own.
        stretched: At the scale of the end, in the direction of the start.
        shrunk: At the scale of the start, in the direction of the end.
    """
    start, end = level[:-1], level[1:]
    return {
        "temperature": ((stretched - start) + (end - shrunk)) / 2,
        "preference": ((end - stretched) + (shrunk - start)) / 2,
        "interaction": (end - shrunk) - (stretched - start),
    }


def _flags(found: dict[str, np.ndarray]) -> list[Flag]:
    """Flags for levels that are not finite, and for states without a direction."""
    levels, flat = found["levels"], found["spread"] == 0
    flags = [
        Flag(row, point, "non_finite_level", f"The level is {levels[row, point]}.")
        for row, point in np.argwhere(~np.isfinite(levels)).tolist()
    ]
    detail = "All logits are equal, so there is no direction to prefer."
    return flags + [
        Flag(row, point, "flat_logits", detail)
        for row, point in np.argwhere(flat & np.isfinite(levels)).tolist()
    ]
