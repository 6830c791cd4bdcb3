"""Levels: what the target's logits and the normaliser of the rest say together.

With `S` the target's tokens, `inside = LSE_S(z)` and `outside = LSE_{not S}(z)`:

    probability       1 / (1 + exp(outside - inside))
    log_probability   -log(1 + exp(outside - inside))
    log_odds          inside - outside

None of these subtracts two nearly equal numbers, at either end of the scale.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..records.target import Unit
from .streamed import TokenLogits


def margin(
    read: TokenLogits, chosen: Bool[Tensor, "points slots"]
) -> Float[Tensor, " points"]:
    """`inside - outside`: log-odds of the chosen slots against everything else."""
    inside = read.logits.masked_fill(~chosen, -torch.inf).logsumexp(1)
    others = read.logits.masked_fill(chosen, -torch.inf).logsumexp(1)
    return inside - torch.logaddexp(read.rest, others)


def level(margin: Float[Tensor, " points"], unit: Unit) -> Float[Tensor, " points"]:
    """The level of a target with this margin.

    Example:
        >>> level(torch.tensor([0.0, 800.0]).double(), "probability")
        tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    if unit == "probability":
        return torch.sigmoid(margin)
    if unit == "log_probability":
        return torch.nn.functional.logsigmoid(margin)
    return margin


def level_slope(
    margin: Float[Tensor, " points"], slope: Float[Tensor, " points"], unit: Unit
) -> Float[Tensor, " points"]:
    """Derivative of a level, from the derivative of its margin."""
    if unit == "probability":
        return torch.sigmoid(margin) * torch.sigmoid(-margin) * slope
    if unit == "log_probability":
        return torch.sigmoid(-margin) * slope
    return slope


def leads(
    read: TokenLogits, chosen: Bool[Tensor, "points slots"], precision: torch.dtype
) -> tuple[Bool[Tensor, " points"], Bool[Tensor, " points"]]:
    """Whether a chosen token has the largest logit, and whether that is a tie.

    In the precision the other tokens were read in, as ranks are.
    """
    logits = read.logits.to(precision).double()
    best = logits.masked_fill(~chosen, -torch.inf).amax(1)
    others = logits.masked_fill(chosen, -torch.inf).amax(1)
    rival = torch.maximum(read.rest_max, others)
    return best > rival, best == rival
