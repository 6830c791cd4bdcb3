"""Levels: what the target's logits and the normaliser of the rest say together.

With `S` the target's tokens, `inside = LSE_S(z)` and `outside = LSE_{not S}(z)`:

    probability       1 / (1 + exp(outside - inside))
    log_probability   -log(1 + exp(outside - inside))
    log_odds          inside - outside
    logit             inside

None of these subtracts two nearly equal numbers, at either end of the scale. A
contrast is the level of one set minus that of another; between log-probabilities the
normaliser cancels, and `inside - inside` is all that is computed.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..records.target import Unit
from .streamed import TokenLogits


def inside(
    read: TokenLogits, chosen: Bool[Tensor, "points slots"]
) -> Float[Tensor, " points"]:
    """Log-sum-exp of the chosen slots' logits."""
    return read.logits.masked_fill(~chosen, -torch.inf).logsumexp(1)


def margin(
    read: TokenLogits, chosen: Bool[Tensor, "points slots"]
) -> Float[Tensor, " points"]:
    """`inside - outside`: log-odds of the chosen slots against everything else."""
    others = read.logits.masked_fill(chosen, -torch.inf).logsumexp(1)
    return inside(read, chosen) - torch.logaddexp(read.rest, others)


def level(margin: Float[Tensor, " points"], unit: Unit) -> Float[Tensor, " points"]:
    """The level of a target with this margin, in a unit that follows from it.

    Example:
        >>> level(torch.tensor([0.0, 800.0]).double(), "probability")
        tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    if unit == "probability":
        return torch.sigmoid(margin)
    if unit == "log_probability":
        return torch.nn.functional.logsigmoid(margin)
    if unit == "log_odds":
        return margin
    raise ValueError(f"a margin has no {unit}")


def token_level(
    read: TokenLogits,
    chosen: Bool[Tensor, "points slots"],
    against: Bool[Tensor, "points slots"],
    unit: Unit,
) -> Float[Tensor, " points"]:
    """Level of the chosen slots, minus that of those they are contrasted with.

    Args:
        read: What a streamed pass left.
        chosen: The slots of each point's target.
        against: The slots it is contrasted with; none where it is not.
        unit: Unit of the level.
    """
    first = _level_of(read, chosen, unit)
    paired = against.any(1)
    if not bool(paired.any()):
        return first
    if unit == "log_probability":
        difference = inside(read, chosen) - inside(read, against)
    else:
        difference = first - _level_of(read, against, unit)
    return torch.where(paired, difference, first)


def _level_of(
    read: TokenLogits, chosen: Bool[Tensor, "points slots"], unit: Unit
) -> Float[Tensor, " points"]:
    """Level of the chosen slots."""
    if unit == "logit":
        return inside(read, chosen)
    return level(margin(read, chosen), unit)


def token_slope(
    read: TokenLogits,
    slope: TokenLogits,
    chosen: Bool[Tensor, "points slots"],
    against: Bool[Tensor, "points slots"],
    unit: Unit,
) -> Float[Tensor, " points"]:
    """Derivative of `token_level`, from the derivatives of the logits.

    Args:
        read: What a streamed pass left.
        slope: Derivatives of its `logits` and its `rest`.
        chosen: The slots of each point's target.
        against: The slots it is contrasted with; none where it is not.
        unit: Unit of the level.
    """
    first = _slope_of(read, slope, chosen, unit)
    paired = against.any(1)
    if not bool(paired.any()):
        return first
    return torch.where(paired, first - _slope_of(read, slope, against, unit), first)


def _slope_of(
    read: TokenLogits,
    slope: TokenLogits,
    chosen: Bool[Tensor, "points slots"],
    unit: Unit,
) -> Float[Tensor, " points"]:
    """Derivative of the level of the chosen slots."""
    own = _mean_slope(read.logits, slope.logits, chosen)
    if unit == "logit":
        return own
    logits = torch.cat([read.logits, read.rest[:, None]], 1)
    changes = torch.cat([slope.logits, slope.rest[:, None]], 1)
    others = torch.cat([~chosen, torch.ones_like(chosen[:, :1])], 1)
    change = own - _mean_slope(logits, changes, others)
    return level_slope(margin(read, chosen), change, unit)


def _mean_slope(
    logits: Float[Tensor, "points entries"],
    changes: Float[Tensor, "points entries"],
    kept: Bool[Tensor, "points entries"],
) -> Float[Tensor, " points"]:
    """Derivative of the log-sum-exp of the kept entries; 0 where none is kept."""
    weights = logits.masked_fill(~kept, -torch.inf).softmax(1)
    return torch.where(weights > 0, weights * changes, 0.0).sum(1)


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
