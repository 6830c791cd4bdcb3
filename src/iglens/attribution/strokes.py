"""The straight lines inside blocks along which levels are integrated, for every row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..readout import AbstractReadout
from ..records import Unit
from .integral.averaged import TOLERANCE, AveragedGradient, averaged_gradient
from .opened import Named, Opening, Shares
from .path import Level, Path
from .reading import PathReading
from .rows import Rows

_ROUNDS = 3
"""How often lines are integrated anew whose parts turn out longer than their step."""


@dataclass(frozen=True, eq=False)
class Question:
    """What is opened, and how.

    Attributes:
        path: The states.
        rows: What is explained.
        readout: What states are read with.
        unit: Unit of the levels.
        by: "head", "neuron" or "source".
        top: Numbered parts to keep per row and segment; None for all.
        memory_budget: Bytes to hold.
        directions: What to open segments by instead.
    """

    path: Path
    rows: Rows
    readout: AbstractReadout
    unit: Unit
    by: Level
    top: int | None
    memory_budget: int
    directions: Named | None = None

    def split(self, step: int) -> Iterator[tuple[slice, "Question"]]:
        """The same for so many rows at a time, and which rows these are."""
        for own, read, rows in self.rows.split(step):
            given = self.directions
            if given is not None:
                given = {key: each.at(read) for key, each in given.items()}
            path = self.path.at(read)
            yield own, replace(self, path=path, rows=rows, directions=given)


@dataclass(frozen=True, eq=False)
class Opened:
    """What was found inside one segment, one row per result row.

    Attributes:
        shares: Of every kind.
        residual: What integration missed of the level's change, before closure.
        disagreement: The most that two rules differ by on a part.
        closed: What closure spread over the parts.
    """

    shares: list[Shares]
    residual: Float[Tensor, " rows"]
    disagreement: Float[Tensor, " rows"]
    closed: Float[Tensor, " rows"]


@dataclass(frozen=True, eq=False)
class Strokes:
    """Some segments' lines, line by line and row by row.

    Attributes:
        question: What is opened.
        openings: The segments; `n_lines` lines for each.
        starts: Where the lines start, through the lens.
        ends: Where they end.
        changes: Change of the level along them, as it was read.
        weights: Weight of each line in its segment.
    """

    question: Question
    openings: Sequence[Opening]
    starts: Float[Tensor, "lines d_model"]
    ends: Float[Tensor, "lines d_model"]
    changes: Float[Tensor, " lines"]
    weights: Float[Tensor, "segments n_lines"]

    @classmethod
    def of(
        cls, question: Question, openings: Sequence[Opening], reading: PathReading
    ) -> "Strokes":
        """The lines of segments that have equally many."""
        path, place = question.path, question.rows.place
        starts, ends, changes = [], [], []
        for opening in openings:
            first, layer = opening.block.start, opening.block.layer
            raw = path.block_states(opening.block)
            for start, end, _ in opening.strokes:
                starts.append(path.through_lens(raw[start - first], layer)[place])
                ends.append(path.through_lens(raw[end - first], layer)[place])
                changes.append(reading.levels[:, end] - reading.starts[:, start])
        weights = [[weight for *_, weight in o.strokes] for o in openings]
        moved = torch.from_numpy(np.concatenate(changes))
        device = path.trace.states.device
        return cls(
            question,
            openings,
            torch.cat(starts).double(),
            torch.cat(ends).double(),
            moved.double().to(device),
            torch.tensor(weights, dtype=torch.float64, device=device),
        )

    def opened(self) -> list[Opened]:
        """What is inside every segment.

        Parts can be longer than the step they add up to, and then ask for more
        exactness: where two rules differ too much on one, lines are integrated anew.
        """
        sizes = torch.linalg.vector_norm(self.ends - self.starts, dim=1)
        for _ in range(_ROUNDS):
            averaged = self._averaged(sizes)
            found = self._opened(averaged)
            apart = torch.stack([each.disagreement for each in found])
            over = (apart / TOLERANCE).nan_to_num(1.0)
            if bool((over <= 1).all()) or bool(averaged.capped.all()):
                break
            n_lines = self.weights.shape[1]
            more = (2 * over).clamp(min=1.0).masked_fill(over <= 1, 1.0)
            sizes = sizes * more[:, None].expand(-1, n_lines, -1).flatten()
        return found

    def _averaged(self, sizes: Float[Tensor, " lines"]) -> AveragedGradient:
        """The gradient along every line."""
        rows = self.question.rows
        repeats = self.weights.numel()
        return averaged_gradient(
            self.question.readout,
            self.starts,
            self.ends,
            rows.tokens[rows.place].repeat(repeats, 1),
            rows.chosen.repeat(repeats, 1),
            rows.against.repeat(repeats, 1),
            self.question.unit,
            sizes=sizes,
            memory_budget=self.question.memory_budget,
        )

    def _opened(self, averaged: AveragedGradient) -> list[Opened]:
        """Shares and certificates, from the gradients."""
        closed = self._mean(averaged.closed(self.changes))
        apart = self._mean(averaged.difference)
        missed = self.changes - (averaged.gradient * averaged.step).sum(1)
        residual = self._mean(averaged.residual.abs()[:, None])[:, :, 0]
        spread = self._mean(missed[:, None])[:, :, 0]
        return [
            Opened(
                self._shares(opening, closed[at]),
                residual[at],
                self._largest(opening, apart[at]),
                spread[at],
            )
            for at, opening in enumerate(self.openings)
        ]

    def _mean(self, values: Float[Tensor, "lines n"]) -> Tensor:
        """Weighted means over the lines of each segment: segments x rows x n."""
        n_rows = len(self.question.rows.targets)
        every = values.view(*self.weights.shape, n_rows, -1)
        return (every * self.weights[:, :, None, None]).sum(1)

    def _largest(
        self, opening: Opening, gradient: Float[Tensor, "rows d_model"]
    ) -> Float[Tensor, " rows"]:
        """The largest share of any part."""
        shares = self._shares(opening, gradient)
        return torch.cat([each.values.abs() for each in shares], 1).amax(1)

    def _shares(
        self, opening: Opening, gradient: Float[Tensor, "rows d_model"]
    ) -> list[Shares]:
        """Shares of everything inside a segment, one row per result row.

        What writes is known per traced row; of several targets at one position each
        takes a turn of its own.
        """
        path, place = self.question.path, self.question.rows.place
        pulled = path.back_through_lens(gradient, opening.block.layer)
        found: list[Shares] = []
        for members in turns(place):
            every = pulled.new_zeros(len(path.trace.positions), pulled.shape[1])
            every[place[members]] = pulled[members]
            shares = opening.shares(every, self.question.by)
            found = found or [each.blank(place.cpu().numpy()) for each in shares]
            for whole, each in zip(found, shares, strict=True):
                whole.values[members] = each.values[place[members]]
        return found


def turns(place: Int[Tensor, " rows"]) -> list[Int[Tensor, " _"]]:
    """Rows in groups in which no position occurs twice.

    Example:
        >>> [rows.tolist() for rows in turns(torch.tensor([0, 0, 1, 2, 2]))]
        [[0, 2, 3], [1, 4]]
    """
    seen: dict[int, int] = {}
    groups: list[list[int]] = []
    for row, at in enumerate(place.tolist()):
        turn = seen[at] = seen.get(at, -1) + 1
        if turn == len(groups):
            groups.append([])
        groups[turn].append(row)
    return [torch.tensor(rows, device=place.device) for rows in groups]
