"""The readout beside the model's own logits, on a real text."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..attribution import attribute
from ..errors import (
    ArgumentError,
    FidelityError,
    NonFiniteError,
    UnsupportedModelError,
)
from ..model.decoder import Decoder
from ..model.discover import arbitrary_tokens
from ..model.noise import TOKENS
from ..readout import MEMORY_BUDGET, AbstractReadout
from ..readout.measure import Measure, gap
from ..readout.streamed import block_width
from ..records import Target
from ..records.findings import Distance, Fidelity
from ..trace import Trace

TEXT = (
    "When the lake froze over in January, the ferry stopped running, and for six weeks "
    "people crossed on foot, carrying lanterns, sledges and the morning's bread."
)
"""What fidelity is measured on; any text would do."""

PARTS = 8
"""Beginnings of it that are run where only whole texts have an answer."""


@dataclass(frozen=True, eq=False)
class Sample:
    """What a model is measured on.

    Attributes:
        text: The text; None if the ids are arbitrary.
        texts: Its token ids; of a model that answers to whole texts alone, those of
            several beginnings of it, the whole last.
        warning: Why they are arbitrary, if that is odd.
    """

    text: str | None
    texts: tuple[list[int], ...]
    warning: str | None = None


@dataclass(frozen=True, eq=False)
class Measured:
    """What running the texts showed.

    Attributes:
        fidelity: The numbers.
        traces: The runs.
        refusal: Why one of them would be refused, or None.
        warnings: Sentences a reader must see.
    """

    fidelity: Fidelity
    traces: tuple[Trace, ...]
    refusal: str | None
    warnings: tuple[str, ...]


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
                return Sample(text, _texts(decoder, ids))
        words = words[: len(words) // 2]
    length = min(4 * TOKENS, decoder.context or 4 * TOKENS)
    return _arbitrary(decoder, length, warning)


def _arbitrary(decoder: Decoder, length: int, warning: str | None) -> Sample:
    """Arbitrary token ids, always the same."""
    ids = arbitrary_tokens(decoder.model, (1, length))[0].tolist()
    return Sample(None, _texts(decoder, ids), warning)


def _texts(decoder: Decoder, ids: list[int]) -> tuple[list[int], ...]:
    """The text itself, or beginnings of it where only whole ones have an answer."""
    if len(decoder.explainable(ids)) > 1:
        return (ids,)
    lengths = sorted({max(2, len(ids) * part // PARTS) for part in range(1, PARTS + 1)})
    return tuple(ids[:length] for length in lengths)


def measure(decoder: Decoder) -> Measured:
    """Run a text and compare every prediction within it, as `explain` would.

    Where it does not run, arbitrary ids do, as many as the model was verified on.

    Raises:
        UnsupportedModelError: If these do not run either.
    """
    sample = sample_text(decoder)
    try:
        return _measured(decoder, sample)
    except UnsupportedModelError as error:
        warning = f"Measured on a few arbitrary token ids instead of a text: {error}"
        return _measured(decoder, _arbitrary(decoder, TOKENS, warning))


def _measured(decoder: Decoder, sample: Sample) -> Measured:
    """What running a sample shows."""
    traces = tuple(_run(decoder, ids) for ids in sample.texts)
    power, refusals = traces[0].power, []
    for trace in traces:
        try:
            result = attribute(trace, _answers(trace), diagnostics=False)
            power = max(power, result.readout.power)
        except (FidelityError, NonFiniteError) as error:
            refusals.append(str(error))
    first, readout = traces[0], decoder.readout
    states = torch.cat([trace.states[-1] for trace in traces])
    own = own_logits(traces)
    return Measured(
        Fidelity(
            text=sample.text,
            n_tokens=len(sample.texts[-1]),
            n_positions=len(own),
            measure=first.measure,
            own=distance(readout.logits(states), own, first.measure),
            precise=distance(precise_logits(readout, states), own, first.measure),
            tolerance=first.tolerance.of(first.measure),
            noise_probability=first.noise.probability,
            noise_log_probability=first.noise.log_probability,
            noise_logit=first.noise.logit,
            power=power,
        ),
        traces,
        refusals[0] if refusals else None,
        (*([] if sample.warning is None else [sample.warning]), *traces[-1].warnings),
    )


def _run(decoder: Decoder, ids: list[int]) -> Trace:
    """A trace of every prediction that the text itself has a token for, if any."""
    places = decoder.explainable(ids)
    return decoder.trace(ids, places[:-1] or places)


def _answers(trace: Trace) -> list[tuple[int, Target]] | None:
    """The text's own tokens; behind its end, or for labels, the most probable."""
    inside = trace.labels is None and int(trace.positions[-1]) < len(trace.token_ids)
    if inside or trace.logits is None:
        return None
    best = trace.logits.argmax(-1).tolist()
    pairs = zip(trace.positions.tolist(), best, strict=True)
    return [(place, Target((token,), trace.decode(token))) for place, token in pairs]


def own_logits(traces: Sequence[Trace]) -> Float[Tensor, "rows vocab"]:
    """The model's own logits of all rows of some traces."""
    return torch.cat([trace.logits for trace in traces if trace.logits is not None])


def precise_logits(
    readout: AbstractReadout, states: Float[Tensor, "rows d_model"]
) -> Float[Tensor, "rows vocab"]:
    """Whole rows of logits, in the precision and the blocks of levels."""
    width = block_width(readout, len(states), MEMORY_BUDGET)
    blocks = readout.project(states).blocks(width)
    return torch.cat([block.logits.clone() for block in blocks], 1)


def distance(
    ours: Float[Tensor, "rows vocab"],
    own: Float[Tensor, "rows vocab"],
    measure: Measure,
) -> Distance:
    """How far two arrays of logits are apart, compared in float64 row by row."""
    pairs = zip(
        ours.double().split(1), own.double().to(ours.device).split(1), strict=True
    )
    found = [(float(gap(a, b, measure)), _moved(a, b)) for a, b in pairs]
    gaps = [one for one, _ in found]
    distributed = measure == "total_variation"
    return Distance(
        largest=max(gaps),
        mean=sum(gaps) / len(gaps),
        probability=max(moved for _, moved in found) if distributed else None,
    )


def _moved(ours: Tensor, own: Tensor) -> float:
    """Largest difference of a probability."""
    return float((ours.softmax(-1) - own.softmax(-1)).abs().max())
