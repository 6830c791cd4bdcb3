"""Along a path: scalars of whole rows of logits, and slopes of any target."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..readout import AbstractReadout
from ..readout.whole import whole_rows
from ..records import Unit
from .chunk import Chunk
from .estimator import AbstractEstimator, slopes
from .scalar import Function, derivative, function_of


def scalar_levels(
    chunk: Chunk,
    row: int,
    states: Float[Tensor, "points d_model"],
    readout: AbstractReadout,
    memory_budget: int,
) -> Float[Tensor, " points"]:
    """The scalar of one row of a chunk, at some states."""
    function = _function(chunk, row, readout, memory_budget)
    turns = whole_rows(readout, states, memory_budget=memory_budget)
    return torch.cat([function(logits) for _, logits, _ in turns])


def segment_slopes(
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
    chosen, against = (
        mask.repeat(len(steps), 1) for mask in (chunk.chosen, chunk.against)
    )
    total = torch.zeros(steps.shape[:2], dtype=torch.float64, device=states.device)
    for place, weight in estimator.nodes.tolist():
        at = starts + place * steps
        slope = slopes(
            readout,
            at.flatten(0, 1),
            steps.flatten(0, 1),
            tokens,
            chosen,
            against,
            unit,
            memory_budget=memory_budget,
        ).view(total.shape)
        for row in chunk.whole:
            function = _function(chunk, row, readout, memory_budget)
            turns = whole_rows(
                readout, at[:, row], steps[:, row], memory_budget=memory_budget
            )
            slope[:, row] = torch.cat(
                [derivative(function, z, dz) for _, z, dz in turns if dz is not None]
            )
        total += weight * slope
    return total


def _function(
    chunk: Chunk, row: int, readout: AbstractReadout, memory_budget: int
) -> Function:
    """The scalar of one row of a chunk."""
    last = chunk.states[-1, chunk.place[row]][None]
    ((_, final, _),) = whole_rows(readout, last, memory_budget=memory_budget)
    return function_of(chunk.targets[row], chunk.scalars[row], final[0])
