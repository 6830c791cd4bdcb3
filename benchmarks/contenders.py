"""What the readout is timed against, written plainly."""

import torch
from torch import Tensor

BLOCKINGS = ((512, 2048), (1024, 2048), (2048, 512), (2048, 2048), (2048, 8192))
"""Rows and columns per block of the bare product; the fastest counts."""


def bare_product(normed: Tensor, weight: Tensor, blocking: tuple[int, int]) -> None:
    """Every logit once, thrown away: what any exact method must at least compute."""
    rows, columns = blocking
    buffer = torch.empty(rows * columns)
    for start in range(0, len(normed), rows):
        part = normed[start : start + rows]
        for column in range(0, len(weight), columns):
            block = weight[column : column + columns]
            out = buffer[: len(part) * len(block)].view(len(part), len(block))
            torch.mm(part, block.T, out=out)


def full_logits(model: torch.nn.Module, states: Tensor, targets: Tensor) -> Tensor:
    """Probability per layer and token, with the whole rows of logits of each layer."""
    found = []
    for state in states:
        logits = model.lm_head(model.model.norm(state))
        found.append(logits.log_softmax(-1).gather(1, targets[:, None])[:, 0].exp())
    return torch.stack(found)


def published_segment(
    model: torch.nn.Module,
    start: Tensor,
    end: Tensor,
    targets: Tensor,
    n_steps: int,
    max_rows: int = 4096,
) -> Tensor:
    """Credit of one segment by the published procedure: `n_steps + 1` evaluations.

    The probability is read at equal steps from one state to the next, with the whole
    head each time, and the differences are added up.
    """
    places = torch.linspace(0, 1, n_steps + 1)[:, None, None]
    path = (start + places * (end - start)).flatten(0, 1)
    wanted = targets.repeat(n_steps + 1)
    read = []
    for first in range(0, len(path), max_rows):
        rows = slice(first, first + max_rows)
        logits = model.lm_head(model.model.norm(path[rows]))
        read.append(logits.softmax(-1).gather(1, wanted[rows, None])[:, 0])
    return torch.cat(read).view(n_steps + 1, -1).diff(dim=0).sum(0)
