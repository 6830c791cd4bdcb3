"""Reading whole paths: levels, ranks, divergences and top tokens of every point."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..readout import AbstractReadout, TokenLogits, read
from ..readout.observers import Divergence, Entropy, Rank, Top
from ..readout.pruning import Pruner
from ..readout.streamed import Observer
from ..readout.target import leads, token_level
from ..records import Unit
from .chunk import Chunk, chunks, points_at_once
from .estimator import AbstractEstimator
from .path import Path
from .rows import Rows
from .whole import scalar_levels, segment_slopes

TOP_TOKENS = 5
"""How many of the most probable tokens are kept per point."""


@dataclass(frozen=True, eq=False)
class PathReading:
    """What was read along the paths of some rows.

    Attributes:
        levels: The target's level at every point.
        starts: Its level where each segment starts, through the map of the layer the
            segment ends at: without a lens, the level of the point before.
        top1: Whether the target is the arg-max; the lowest id wins a tie.
        pruned: Whether the level is an upper bound, certified below the tolerance.
        slopes: The estimator's sum over each segment; zero for the observed one.
        rank: Place of the target, 1 the most probable; 0 where not computed.
        kl: Divergence of each point from the final distribution; NaN if not computed.
        top_ids: The most probable tokens; no columns if not computed.
        top_probabilities: Their probabilities.
    """

    levels: Float[np.ndarray, "rows points"]
    starts: Float[np.ndarray, "rows segments"]
    top1: Bool[np.ndarray, "rows points"]
    pruned: Bool[np.ndarray, "rows points"]
    slopes: Float[np.ndarray, "rows segments"]
    rank: Int[np.ndarray, "rows points"]
    kl: Float[np.ndarray, "rows points"]
    top_ids: Int[np.ndarray, "rows points top"]
    top_probabilities: Float[np.ndarray, "rows points top"]

    def at(self, rows: slice) -> "PathReading":
        """What was read for some of the rows."""
        names = self.__dataclass_fields__
        return PathReading(**{name: getattr(self, name)[rows] for name in names})


def read_paths(
    path: Path,
    rows: Rows,
    readout: AbstractReadout,
    unit: Unit,
    estimator: AbstractEstimator,
    *,
    diagnostics: bool,
    tolerance: float = 0.0,
    memory_budget: int,
) -> PathReading:
    """Read every point of every row, in as few streamed passes as memory allows.

    Points between the baseline and the final one whose probability is certified to be
    below the tolerance are finished early; which tokens prove it is learned in the
    first pass.
    """
    pruner = Pruner(readout, tolerance, memory_budget)
    pieces = [
        _ChunkReader(chunk, readout, unit, memory_budget, pruner).read(
            estimator, diagnostics
        )
        for chunk in chunks(path, rows, points_at_once(readout, memory_budget))
    ]
    fields = PathReading.__dataclass_fields__
    return PathReading(
        **{f: np.concatenate([getattr(piece, f) for piece in pieces]) for f in fields}
    )


@dataclass(frozen=True, eq=False)
class _ChunkReader:
    """One chunk, what it is read with, and in which unit."""

    chunk: Chunk
    readout: AbstractReadout
    unit: Unit
    memory_budget: int
    pruner: Pruner

    def read(self, estimator: AbstractEstimator, diagnostics: bool) -> PathReading:
        """Read once; slopes take further passes, one per node of the rule."""
        chunk, tokens = self.chunk, self.chunk.flat_tokens
        rank = Rank(tokens)
        top = Top(len(tokens), TOP_TOKENS if diagnostics else 0, tokens.device)
        divergence = Divergence(chunk.states.shape[1])
        spread = Entropy(len(tokens), tokens.device)
        observers: list[Observer] = [rank, top] if diagnostics else []
        diverging = diagnostics or "kl" in chunk.of_kind
        observers += [divergence] if diverging else []
        observers += [spread] if "entropy" in chunk.of_kind else []
        if observers:
            found = self._read(chunk.flat_states, tokens, observers)
            pruned = torch.zeros_like(found.rest, dtype=torch.bool)
        else:
            found, pruned = self.pruner.read(chunk.flat_states, tokens, chunk.prunable)
        total = found.log_normaliser
        kl = torch.full_like(total, torch.nan)
        if diverging:
            kl = divergence.mean_gap - _from_last(total, len(chunk.states))
        levels = self._levels(found)
        if chunk.whole:
            self._put_whole(levels, chunk.flat_states, kl, spread)
        ranks = chunk.of_rows(rank.rank).masked_fill(
            ~chunk.chosen, self.readout.vocab_size
        )
        return PathReading(
            levels=_rows_first(levels),
            starts=_rows_first(levels[:-1] if chunk.starts is None else self._starts()),
            top1=_rows_first(self._leads(found)),
            pruned=_rows_first(chunk.of_rows(pruned)),
            slopes=_rows_first(
                segment_slopes(
                    chunk, self.readout, self.unit, estimator, self.memory_budget
                )
            ),
            rank=_rows_first(
                (ranks.amin(2) * chunk.chosen.any(1))
                if diagnostics
                else torch.zeros_like(ranks[:, :, 0])
            ),
            kl=_rows_first(
                chunk.of_rows(kl if diagnostics else torch.full_like(kl, torch.nan))
            ),
            top_ids=_rows_first(chunk.of_rows(top.ids)),
            top_probabilities=_rows_first(
                chunk.of_rows((top.logits - total[:, None]).exp())
            ),
        )

    def _read(
        self, states: Tensor, tokens: Tensor, observers: Sequence[Observer] = ()
    ) -> TokenLogits:
        """A streamed pass within the budget."""
        return read(
            self.readout,
            states,
            tokens,
            observers=observers,
            memory_budget=self.memory_budget,
        )

    def _levels(self, found: TokenLogits) -> Float[Tensor, "points rows"]:
        """Levels of the rows that explain tokens; of the others, anything."""
        own = self._own(found)
        repeats = len(own.rest) // len(self.chunk.place)
        chosen, against = (
            mask.repeat(repeats, 1) for mask in (self.chunk.chosen, self.chunk.against)
        )
        return token_level(own, chosen, against, self.unit).view(repeats, -1)

    def _own(self, found: TokenLogits) -> TokenLogits:
        """What was read at every state, for every row that reads it."""
        parts = (found.logits, found.rest, found.rest_max)
        return TokenLogits(*(self.chunk.of_rows(p).flatten(0, 1) for p in parts))

    def _put_whole(
        self,
        levels: Float[Tensor, "points rows"],
        states: Float[Tensor, "all d_model"],
        kl: Float[Tensor, " all"],
        spread: Entropy,
    ) -> None:
        """Fill in the levels of rows that explain the whole distribution."""
        chunk = self.chunk
        for row in chunk.whole:
            if chunk.targets[row].kind == "kl":
                levels[:, row] = chunk.of_rows(kl)[:, row]
            elif chunk.targets[row].kind == "entropy":
                levels[:, row] = chunk.of_rows(spread.entropy)[:, row]
            else:
                levels[:, row] = scalar_levels(
                    chunk,
                    row,
                    chunk.of_rows(states)[:, row],
                    self.readout,
                    self.memory_budget,
                )

    def _starts(self) -> Float[Tensor, "segments rows"]:
        """Levels where the segments start, through the map of where they end."""
        chunk = self.chunk
        assert chunk.starts is not None  # asked for with a lens only
        states = chunk.starts.flatten(0, 1)
        levels = self._levels(
            self._read(states, chunk.tokens.repeat(len(chunk.starts), 1))
        )
        for row in chunk.whole:
            levels[:, row] = scalar_levels(
                chunk,
                row,
                chunk.starts[:, chunk.place[row]],
                self.readout,
                self.memory_budget,
            )
        return levels

    def _leads(self, found: TokenLogits) -> Bool[Tensor, "points rows"]:
        """Whether each row's token or set is the arg-max."""
        chunk = self.chunk
        chosen = chunk.chosen.repeat(len(chunk.states), 1)
        first, tied = leads(self._own(found), chosen, self.readout.precision)
        first |= tied & self._wins_ties(tied)
        ranked = [kind in ("token", "set") for kind in chunk.of_kind]
        mask = torch.tensor(ranked, device=first.device)
        return first.view(len(chunk.states), -1) & mask

    def _wins_ties(self, tied: Bool[Tensor, " members"]) -> Bool[Tensor, " members"]:
        """Whether a target that shares the largest logit has the lowest id of all."""
        chunk, wins = self.chunk, torch.zeros_like(tied)
        if not bool(tied.any()):
            return wins
        members = tied.nonzero().flatten()
        states = chunk.of_rows(chunk.flat_states).flatten(0, 1)[members]
        tokens = chunk.of_rows(chunk.flat_tokens).flatten(0, 1)[members]
        chosen = chunk.chosen.repeat(len(chunk.states), 1)[members]
        rank = Rank(tokens)
        self._read(states, tokens, [rank])
        wins[members] = ((rank.rank == 1) & chosen).any(1)
        return wins


def _from_last(total: Float[Tensor, " all"], n_points: int) -> Float[Tensor, " all"]:
    """Log-normaliser of each path's last point minus that of each point."""
    by_point = total.view(n_points, -1)
    return (by_point[-1] - by_point).flatten()


def _rows_first(values: Tensor) -> np.ndarray:
    """Points x rows x … on any device, as rows x points x … in NumPy."""
    return values.transpose(0, 1).contiguous().cpu().numpy()
