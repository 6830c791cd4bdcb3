"""The paper's published procedure, written plainly."""

from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def published_procedure(
    model: Any,
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

    Args:
        model: The causal model.
        starts: Where segments start, segments x rows x d_model.
        ends: Where they end.
        targets: A token id per row.
        n_steps: Steps per segment.
        max_rows: States whose logits are held at once, as published.
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
