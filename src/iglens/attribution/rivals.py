"""Which tokens gained and lost most over each segment, in a second streamed pass."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..readout import AbstractReadout, LogitBlock
from ..readout.observers import Top
from ..readout.streamed import block_width


@dataclass(frozen=True, eq=False)
class Rivals:
    """Extremes over the vocabulary, for some paths side by side.

    Attributes:
        gain_ids: Tokens that gained most, most first; -1 where fewer gained.
        gains: What they gained.
        loss_ids: Tokens that lost most.
        losses: What they lost, negative.
        mass: Sum of all probabilities.
    """

    gain_ids: Int[Tensor, "segments paths top"]
    gains: Float[Tensor, "segments paths top"]
    loss_ids: Int[Tensor, "segments paths top"]
    losses: Float[Tensor, "segments paths top"]
    mass: Float[Tensor, "points paths"]


@torch.no_grad()
def rivals(
    readout: AbstractReadout,
    states: Float[Tensor, "points paths d_model"],
    log_normaliser: Float[Tensor, "points paths"],
    top: int,
    memory_budget: int,
) -> Rivals:
    """Stream the vocabulary once more, differencing every token's probability.

    Equals `logits.softmax(-1)` of every state, differenced along the path and sorted,
    without holding a row of it.

    Args:
        readout: What to read with.
        states: The states of some paths.
        log_normaliser: Log-sum-exp of all logits of every state, from a pass before.
        top: How many tokens to keep at either end.
        memory_budget: Bytes for blocks of logits.
    """
    points, paths = states.shape[:2]
    steps, device = (points - 1) * paths, states.device
    gaining, losing = Top(steps, top, device), Top(steps, top, device)
    mass = torch.zeros(points * paths, dtype=torch.float64, device=device)
    nothing = torch.zeros((steps, 0), device=device)  # no token is wanted apart
    projection = readout.project(states.flatten(0, 1))
    width = block_width(readout, points * paths, memory_budget // 2)
    for block in projection.blocks(width):
        p = _probabilities(block.logits, log_normaliser.flatten())
        mass += p.sum(1, dtype=torch.float64)
        steady = p.unflatten(0, (points, paths))
        change = (steady[1:] - steady[:-1]).flatten(0, 1)
        gaining.watch(LogitBlock(block.start, change), nothing)
        losing.watch(LogitBlock(block.start, change.neg_()), nothing)
    mass = mass.view(points, paths)
    known = mass.isfinite()
    known = (known[1:] & known[:-1])[:, :, None]
    gain_ids, gains = _above_zero(gaining, known)
    loss_ids, losses = _above_zero(losing, known)
    return Rivals(gain_ids, gains, loss_ids, -losses, mass)


def _probabilities(
    logits: Float[Tensor, "points block"], log_normaliser: Float[Tensor, " points"]
) -> Float[Tensor, "points block"]:
    """`exp(z - log_normaliser)`, in the place of the logits.

    What is under e^-80 counts as that (e^-700 in float64): denormal numbers are slow to
    compute with, and nobody's rival.
    """
    floor = -700.0 if logits.dtype == torch.float64 else -80.0
    logits -= log_normaliser.to(logits.dtype)[:, None]
    return logits.clamp_(min=floor).exp_()


def _above_zero(
    top: Top, known: Bool[Tensor, "segments paths 1"]
) -> tuple[Int[Tensor, "segments paths top"], Float[Tensor, "segments paths top"]]:
    """What was found, without those that did not move that way; NaN if not known."""
    ids, values = (x.unflatten(0, known.shape[:2]) for x in (top.ids, top.logits))
    moved = (values > 0) & known
    values = values.masked_fill(~moved, 0.0).masked_fill(~known, torch.nan)
    return ids.masked_fill(~moved, -1), values
