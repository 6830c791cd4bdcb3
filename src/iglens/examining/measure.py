"""The readout beside the model's own logits, on a real text."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..attribution import attribute
from ..errors import ArgumentError, FidelityError, NonFiniteError
from ..model.decoder import Decoder
from ..model.discover import arbitrary_tokens
from ..model.noise import TOKENS
from ..readout import MEMORY_BUDGET, AbstractReadout
from ..readout.fidelity import rows_at_once
from ..readout.streamed import block_width
from ..records import Target
from ..records.findings import Distance, Fidelity
from ..trace import Trace

TEXT = (
    "When the lake froze over in January, the ferry stopped running, and for six weeks "
    "people crossed on foot, carrying lanterns, sledges and the morning's bread."
)
"""What fidelity is measured on; any text would do."""


@dataclass(frozen=True, eq=False)
class Sample:
    """A text as a model's token ids.

    Attributes:
        text: The text; None if the ids are arbitrary.
        ids: Its token ids.
        warning: Why they are arbitrary, if that is odd.
    """

    text: str | None
    ids: list[int]
    warning: str | None = None


@dataclass(frozen=True, eq=False)
class Measured:
    """What one run of a text showed.

    Attributes:
        fidelity: The numbers.
        trace: The run.
        refusal: Why it would be refused, or None.
    """

    fidelity: Fidelity
    trace: Trace
    refusal: str | None


def sample_text(decoder: Decoder) -> Sample:
    """The text, or its beginning, in the decoder's tokens; else arbitrary ids."""
    warning, words = None, TEXT.split()
    while decoder.tokenizer is not None and words:
        text = " ".join(words)
        try:
            ids = decoder.encode(text)
        except ArgumentError as error:  # too long, or not its ids
            warning = f"Measured on arbitrary token ids instead of a text: {error}"
        else:
            if len(ids) > 1:
                return Sample(text, ids)
        words = words[: len(words) // 2]
    length = min(4 * TOKENS, decoder.context or 4 * TOKENS)
    ids = arbitrary_tokens(decoder.model, (1, length))[0].tolist()
    return Sample(None, ids, warning)


def measure(decoder: Decoder, sample: Sample) -> Measured:
    """Run a text and compare every prediction within it, as `explain` would."""
    n_tokens = len(sample.ids)
    causal = decoder.declaration.causal
    positions = range(1, n_tokens) if causal else [n_tokens]
    trace = decoder.trace(sample.ids, positions)
    assert trace.logits is not None  # a decoder's traces have them
    own, states, readout = trace.logits, trace.states[-1], trace.readout
    target = None if causal else Target((int(own[0].argmax()),), "the most probable")
    power, refusal = trace.power, None
    try:
        power = attribute(trace, target, diagnostics=False).readout.power
    except (FidelityError, NonFiniteError) as error:
        refusal = str(error)
    return Measured(
        Fidelity(
            text=sample.text,
            n_tokens=n_tokens,
            n_positions=len(own),
            own=distance(readout, readout.logits(states), own),
            precise=distance(readout, precise_logits(readout, states), own),
            tolerance=trace.tolerance.total_variation,
            noise_probability=trace.noise.probability,
            noise_log_probability=trace.noise.log_probability,
            power=power,
        ),
        trace,
        refusal,
    )


def precise_logits(
    readout: AbstractReadout, states: Float[Tensor, "rows d_model"]
) -> Float[Tensor, "rows vocab"]:
    """Whole rows of logits, in the precision and the blocks of levels."""
    width = block_width(readout, len(states), MEMORY_BUDGET)
    blocks = readout.project(states).blocks(width)
    return torch.cat([block.logits.clone() for block in blocks], 1)


def distance(
    readout: AbstractReadout,
    ours: Float[Tensor, "rows vocab"],
    own: Float[Tensor, "rows vocab"],
) -> Distance:
    """How far the distributions of two arrays of logits are apart, in float64."""
    step = rows_at_once(readout, MEMORY_BUDGET)
    pairs = zip(ours.split(step), own.to(ours.device).split(step), strict=True)
    gaps = [(_softmax(a) - _softmax(b)).abs() for a, b in pairs]
    variation = torch.cat([gap.sum(-1) / 2 for gap in gaps])
    return Distance(
        total_variation=float(variation.max()),
        mean_total_variation=float(variation.mean()),
        probability=max(float(gap.max()) for gap in gaps),
    )


def _softmax(logits: Tensor) -> Tensor:
    """Probabilities in float64."""
    return logits.double().softmax(-1)
