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


def published_procedure(
    model: torch.nn.Module,
    starts: Tensor,
    ends: Tensor,
    targets: Tensor,
    n_steps: int,
    max_rows: int = 4096,
) -> Tensor:
    """Credits by the published procedure: `n_steps + 1` head evaluations a segment.

    The target's probability is read at equal steps along every segment, always with
    whole rows of log-probabilities, and the differences are added up (the script's
    prediction-aware variant, which needs no gradient; the other one is slower).
    """
    places = torch.linspace(0, 1, n_steps + 1)[:, None, None, None]
    points = (starts + places * (ends - starts)).flatten(0, 2)
    wanted = targets.repeat((n_steps + 1) * len(starts))
    read = []
    for first in range(0, len(points), max_rows):
        rows = slice(first, first + max_rows)
        log_p = model.lm_head(model.model.norm(points[rows])).log_softmax(-1)
        read.append(log_p.gather(1, wanted[rows, None])[:, 0].exp())
    return torch.cat(read).view(n_steps + 1, *starts.shape[:2]).diff(dim=0).sum(0)
