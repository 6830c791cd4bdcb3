"""Whole rows of logits, a few states at a time: for what no streamed sum gives."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from .abstract import AbstractReadout
from .streamed import MEMORY_BUDGET, block_width


@torch.no_grad()
def whole_rows(
    readout: AbstractReadout,
    states: Float[Tensor, "points d_model"],
    directions: Float[Tensor, "points d_model"] | None = None,
    *,
    memory_budget: int = MEMORY_BUDGET,
) -> Iterator[
    tuple[slice, Float[Tensor, "some vocab"], Float[Tensor, "some vocab"] | None]
]:
    """Logits of some states after one another, and their derivatives if wanted.

    Args:
        readout: What to read with.
        states: Residual states, before the final norm.
        directions: Directions along which derivatives are wanted.
        memory_budget: Bytes that the rows of one turn may take, as float64.

    Yields:
        Which states, their logits in float64, and the derivatives.
    """
    step = max(1, memory_budget // (readout.vocab_size * 8 * 6))
    for start in range(0, len(states), step):
        part = slice(start, min(start + step, len(states)))
        along = None if directions is None else directions[part]
        projection = readout.project(states[part], along)
        width = block_width(readout, part.stop - part.start, memory_budget)
        logits, slopes = [], []
        for block in projection.blocks(width):  # in buffers that are used again
            logits.append(block.logits.to(torch.float64, copy=True))
            if block.derivatives is not None:
                slopes.append(block.derivatives.to(torch.float64, copy=True))
        yield part, torch.cat(logits, 1), torch.cat(slopes, 1) if slopes else None
