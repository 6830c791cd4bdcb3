"""How much of a model's output is rounding: measured, not assumed.

Running the same text in another batch takes other kernels, which round differently.
The noise floor is what that changes in the model's output; the tolerance is what
reading one and the same state in another batch changes.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..readout import AbstractReadout
from ..readout.fidelity import MARGIN, NoiseFloor, Tolerance
from ..readout.measure import Measure, total_variation
from ..stages import stage
from .discover import arbitrary_tokens
from .runner import Runner

TOKENS = 9
"""Length of the text a model is verified on."""


def measure_noise(
    runner: Runner,
    ids: Tensor,
    logits: Float[Tensor, "rows vocab"],
    causal: bool = True,
) -> NoiseFloor:
    """What running the same tokens in another batch, or cut short, changes.

    Cutting a text short is no test where tokens see later ones, nor where only the
    whole text has logits: the texts are run one by one instead.
    """
    half, n_texts = len(logits) // 2 + 1, len(ids)
    among = [ids.repeat(3, 1), beside_another_text(ids)]
    others = [runner(batch)[:n_texts].flatten(0, 1) for batch in among]
    if runner.pooled:
        others.append(torch.cat([runner(ids[[i]])[0] for i in range(n_texts)]))
    elif causal:
        others.append(runner(ids[:, :half])[0])
    changes = [distances(other, logits[: len(other)]) for other in others]
    least = resolution(logits)
    if logits.dtype not in (torch.float32, torch.float64):
        least /= 4  # half a step of each logit moves no probability by more
    return NoiseFloor(
        probability=max(least, *(change.probability for change in changes)),
        log_probability=max(4 * least, *(change.log_probability for change in changes)),
        logit=max(4 * least, *(change.logit for change in changes)),
    )


@stage("verify")
def keeps_texts_apart(runner: Runner, noise: NoiseFloor) -> bool:
    """Whether a text filled up on the right, beside a longer one, stays as it is."""
    long = arbitrary_tokens(runner.model, (1, TOKENS))
    short = long[:, : TOKENS // 2].flip(1)
    filled = torch.cat([short, short[:, -1:].repeat(1, TOKENS - short.shape[1])], 1)
    lengths = (TOKENS, short.shape[1])
    together = runner(torch.cat([long, filled]), lengths=lengths)
    return all(
        same_up_to_rounding(together[i, : len(logits)], logits, noise, runner.measure)
        for i, logits in enumerate((runner(long)[0], runner(short)[0]))
    )


def same_up_to_rounding(
    ours: Float[Tensor, "text vocab"],
    own: Float[Tensor, "text vocab"],
    noise: NoiseFloor,
    measure: Measure,
) -> bool:
    """Whether two readings differ by no more than another batch would make them."""
    moved = distances(ours, own)
    if measure == "logit":
        return moved.logit <= MARGIN * noise.logit
    return moved.probability <= MARGIN * noise.probability


def beside_another_text(ids: Tensor) -> Tensor:
    """A batch of these texts and the same tokens in reverse."""
    return torch.cat([ids, ids.flip(1)])


def measure_tolerance(
    injected: AbstractReadout,
    states: Float[Tensor, "text d_model"],
    read: Float[Tensor, "text vocab"],
) -> Tolerance:
    """What reading the same states one by one, or among more, changes."""
    alone = torch.cat([injected.logits(states[[i]]) for i in range(len(states))])
    among = injected.logits(states.repeat(5, 1))[: len(states)]
    changes = [distances(other, read) for other in (alone, among)]
    least = rounding(read)
    return Tolerance(
        total_variation=MARGIN * max(least, *(c.total_variation for c in changes)),
        log_probability=MARGIN * max(4 * least, *(c.log_probability for c in changes)),
        logit=MARGIN * max(4 * least, *(c.logit for c in changes)),
    )


def resolution(logits: Tensor) -> float:
    """Resolution of the logits' dtype at their size.

    A lower bound on rounding, since a small model may happen to show none.
    """
    size = float(logits.abs().masked_fill(~logits.isfinite(), 0.0).max())
    return max(torch.finfo(logits.dtype).eps * size, 1e-12)


def least_gap(logits: Tensor, measure: Measure) -> float:
    """Gap that rounding may cause where none is seen."""
    return rounding(logits) if measure == "total_variation" else 4 * resolution(logits)


def rounding(logits: Tensor) -> float:
    """Total variation that rounding may cause where none is seen."""
    least = resolution(logits)
    if logits.dtype not in (torch.float32, torch.float64):
        least /= 32  # sums are kept in float32: single logits flip by one step
    return least


class Distance(NamedTuple):
    """How far apart two readings of the same states are, at most.

    Attributes:
        total_variation: Between whole distributions.
        probability: Largest change of any probability.
        log_probability: Largest change of a log-probability, in nats.
        logit: Largest change of a logit.
    """

    total_variation: float
    probability: float
    log_probability: float
    logit: float


def distances(
    ours: Float[Tensor, "text vocab"], own: Float[Tensor, "text vocab"]
) -> Distance:
    """How far apart two readings are.

    Logits and logarithms are compared for tokens within 20 nats of the most probable.
    """
    one, other = (logits.double().log_softmax(-1) for logits in (ours, own))
    unlikely = other <= other.amax(-1, keepdim=True) - 20
    moved = (one - other, ours.double() - own.double())
    log, logit = (m.abs().masked_fill(unlikely, 0.0).max() for m in moved)
    return Distance(
        float(total_variation(ours, own).max()),
        float((one.exp() - other.exp()).abs().max()),
        float(log),
        float(logit),
    )
