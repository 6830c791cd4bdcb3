"""Reading whole paths: levels, ranks, divergences and top tokens of every point."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..readout import AbstractReadout, TokenLogits, read
from ..readout.observers import Divergence, Rank, Top
from ..readout.target import leads, level, margin
from ..records import Unit
from .estimator import AbstractEstimator, slopes
from .path import Path
from .rows import Rows

TOP_TOKENS = 5
"""How many of the most probable tokens are kept per point."""

POINTS_AT_ONCE = 2048
"""States per streamed pass: more no longer speed the matrix product up."""


@dataclass(frozen=True, eq=False)
class PathReading:
    """What was read along the paths of some rows.

    Attributes:
        levels: The target's level at every point.
        top1: Whether the target is the arg-max; the lowest id wins a tie.
        slopes: The estimator's sum over each segment; zero for the observed one.
        rank: Place of the target, 1 the most probable; 0 where not computed.
        kl: Divergence of each point from the final distribution; NaN if not computed.
        top_ids: The most probable tokens; no columns if not computed.
        top_probabilities: Their probabilities.
    """

    levels: Float[np.ndarray, "rows points"]
    top1: Bool[np.ndarray, "rows points"]
    slopes: Float[np.ndarray, "rows segments"]
    rank: Int[np.ndarray, "rows points"]
    kl: Float[np.ndarray, "rows points"]
    top_ids: Int[np.ndarray, "rows points top"]
    top_probabilities: Float[np.ndarray, "rows points top"]


@dataclass(frozen=True, eq=False)
class Chunk:
    """Neighbouring positions whose paths are read in one pass.

    Attributes:
        states: All points of their paths.
        tokens: The tokens wanted at each position.
        place: Position within the chunk that each result row reads.
        chosen: Slots that make up each result row's target.
    """

    states: Float[Tensor, "points paths d_model"]
    tokens: Int[Tensor, "paths slots"]
    place: Int[Tensor, " rows"]
    chosen: Bool[Tensor, "rows slots"]

    @property
    def flat_states(self) -> Float[Tensor, "all d_model"]:
        """All states, point-major."""
        return self.states.flatten(0, 1)

    @property
    def flat_tokens(self) -> Int[Tensor, "all slots"]:
        """The wanted tokens of all states, point-major."""
        return self.tokens.repeat(len(self.states), 1)

    def of_rows(self, values: Tensor) -> Tensor:
        """Values of all states, picked for the result rows: points x rows x …."""
        return values.unflatten(0, self.states.shape[:2])[:, self.place]


def read_paths(
    path: Path,
    rows: Rows,
    readout: AbstractReadout,
    unit: Unit,
    estimator: AbstractEstimator,
    *,
    diagnostics: bool,
    memory_budget: int,
) -> PathReading:
    """Read every point of every row, in as few streamed passes as memory allows."""
    at_once = points_at_once(readout, memory_budget)
    pieces = [
        _read_chunk(chunk, readout, unit, estimator, diagnostics, memory_budget)
        for chunk in _chunks(path, rows, at_once)
    ]
    fields = PathReading.__dataclass_fields__
    return PathReading(
        **{f: np.concatenate([getattr(piece, f) for piece in pieces]) for f in fields}
    )


def points_at_once(readout: AbstractReadout, memory_budget: int) -> int:
    """States of a streamed pass: a quarter of the budget is for normed ones."""
    return min(POINTS_AT_ONCE, readout.points_within(memory_budget // 4))


def _chunks(path: Path, rows: Rows, at_once: int) -> Iterator[Chunk]:
    """The positions that have rows, a few at a time."""
    for part in path.row_chunks(len(rows.tokens), at_once):
        inside = (rows.place >= part.start) & (rows.place < part.stop)
        if bool(inside.any()):
            yield Chunk(
                path.states(part),
                rows.tokens[part],
                rows.place[inside] - part.start,
                rows.chosen[inside],
            )


def _read_chunk(
    chunk: Chunk,
    readout: AbstractReadout,
    unit: Unit,
    estimator: AbstractEstimator,
    diagnostics: bool,
    memory_budget: int,
) -> PathReading:
    """Read once; slopes take further passes, one per node of the rule."""
    tokens, (n_points, n_paths) = chunk.flat_tokens, chunk.states.shape[:2]
    rank = Rank(tokens)
    top = Top(len(tokens), TOP_TOKENS if diagnostics else 0, tokens.device)
    divergence = Divergence(n_paths)
    found = read(
        readout,
        chunk.flat_states,
        tokens,
        observers=[rank, top, divergence] if diagnostics else [],
        memory_budget=memory_budget,
    )
    own = TokenLogits(*(chunk.of_rows(v).flatten(0, 1) for v in _parts(found)))
    chosen = chunk.chosen.repeat(n_points, 1)
    shape = (n_points, len(chunk.place))
    first, tied = leads(own, chosen, readout.precision)
    first |= tied & _wins_ties(chunk, tied, readout, memory_budget)
    total = found.log_normaliser
    if diagnostics:
        places = chunk.of_rows(rank.rank).masked_fill(~chunk.chosen, readout.vocab_size)
        kl = divergence.mean_gap - _from_last(total, n_points)
    else:
        places = chunk.of_rows(torch.zeros_like(tokens))
        kl = torch.full_like(total, torch.nan)
    return PathReading(
        levels=_rows_first(level(margin(own, chosen), unit).view(shape)),
        top1=_rows_first(first.view(shape)),
        slopes=_rows_first(_slopes(chunk, readout, unit, estimator, memory_budget)),
        rank=_rows_first(places.amin(2)),
        kl=_rows_first(chunk.of_rows(kl)),
        top_ids=_rows_first(chunk.of_rows(top.ids)),
        top_probabilities=_rows_first(
            chunk.of_rows((top.logits - total[:, None]).exp())
        ),
    )


def _parts(found: TokenLogits) -> tuple[Tensor, Tensor, Tensor]:
    """The fields, in order."""
    return found.logits, found.rest, found.rest_max


def _from_last(total: Float[Tensor, " all"], n_points: int) -> Float[Tensor, " all"]:
    """Log-normaliser of each path's last point minus that of each point."""
    by_point = total.view(n_points, -1)
    return (by_point[-1] - by_point).flatten()


def _wins_ties(
    chunk: Chunk,
    tied: Bool[Tensor, " members"],
    readout: AbstractReadout,
    memory_budget: int,
) -> Bool[Tensor, " members"]:
    """Whether a target that shares the largest logit has the lowest id of all."""
    wins = torch.zeros_like(tied)
    if not bool(tied.any()):
        return wins
    members = tied.nonzero().flatten()
    states = chunk.of_rows(chunk.flat_states).flatten(0, 1)[members]
    tokens = chunk.of_rows(chunk.flat_tokens).flatten(0, 1)[members]
    chosen = chunk.chosen.repeat(len(chunk.states), 1)[members]
    rank = Rank(tokens)
    read(readout, states, tokens, observers=[rank], memory_budget=memory_budget)
    wins[members] = ((rank.rank == 1) & chosen).any(1)
    return wins


def _slopes(
    chunk: Chunk,
    readout: AbstractReadout,
    unit: Unit,
    estimator: AbstractEstimator,
    memory_budget: int,
) -> Float[Tensor, "segments rows"]:
    """Weighted sum of the slopes at the estimator's nodes, for every segment."""
    states = chunk.of_rows(chunk.flat_states).to(readout.precision)
    starts, steps = states[:-1], states[1:] - states[:-1]
    tokens = chunk.tokens[chunk.place].repeat(len(steps), 1)
    chosen = chunk.chosen.repeat(len(steps), 1)
    total = torch.zeros(steps.shape[:2], dtype=torch.float64, device=states.device)
    for place, weight in estimator.nodes.tolist():
        slope = slopes(
            readout,
            (starts + place * steps).flatten(0, 1),
            steps.flatten(0, 1),
            tokens,
            chosen,
            unit,
            memory_budget=memory_budget,
        )
        total += weight * slope.view(total.shape)
    return total


def _rows_first(values: Tensor) -> np.ndarray:
    """Points x rows x … on any device, as rows x points x … in NumPy."""
    return values.transpose(0, 1).contiguous().cpu().numpy()
