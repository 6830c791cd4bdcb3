"""The one verb of this room: from a model to what is known about it."""

from typing import Any

from torch import nn

from ..errors import (
    ArgumentError,
    FidelityError,
    NonFiniteError,
    UnsupportedModelError,
)
from ..model.declaration import Declaration
from ..model.decoder import Decoder
from ..model.source import Source, versions
from ..readout.fidelity import POWER_NEEDED
from ..records import ModelInfo
from ..records.examination import Examination, Verdict
from .facts import model_facts
from .found import layer_facts, readout_facts
from .measure import Measured, measure
from .memory import memory_estimate
from .parts import block_facts
from .precision import precision_cost

REFUSALS = (UnsupportedModelError, FidelityError, NonFiniteError)
"""What says that a model is refused; other errors are about the arguments."""

N_TOKENS = 512
"""Length of the text that memory is estimated for, unless one is given."""


def examine(
    model: Decoder | nn.Module,
    tokenizer: Any = None,
    *,
    declaration: Declaration | None = None,
    n_tokens: int = N_TOKENS,
) -> Examination:
    """Say whether a model is read exactly, how that was found out, and what it costs.

    Runs it a few times on short texts, and a float32 copy of it if it computes in
    less and memory allows. The model is left as it was found.

    Args:
        model: A decoder, or a loaded model, which may be one that is refused.
        tokenizer: The Hugging Face tokenizer of a loaded model, or None.
        declaration: What discovery cannot see of a loaded model.
        n_tokens: Length of the text to estimate memory for; at most the context.

    Returns:
        What was found; of a refused model as much as could be.

    Raises:
        ArgumentError: If `n_tokens` is below 2, or a tokenizer or a declaration is
            given for a decoder, which has its own.
    """
    if isinstance(model, Decoder):
        if tokenizer is not None or declaration is not None:
            raise ArgumentError(
                "`tokenizer` and `declaration` are for a loaded model; this is a "
                "`Decoder`, which has its own."
            )
        return examine_decoder(model, n_tokens)
    source = Source(id=type(model).__name__)
    try:
        decoder = Decoder(model, tokenizer, declaration=declaration, source=source)
    except REFUSALS as error:
        return examine_refused(error, source, model, tokenizer, declaration)
    return examine_decoder(decoder, n_tokens)


def examine_decoder(decoder: Decoder, n_tokens: int = N_TOKENS) -> Examination:
    """What is known about a verified model; see `examine`."""
    if n_tokens < 2:
        raise ArgumentError(
            f"`n_tokens` is {n_tokens}; a text with a prediction in it has at least 2."
        )
    model, stream = decoder.model, decoder.verified.stream
    try:
        measured = measure(decoder)
    except REFUSALS as error:  # it has changed since it was verified
        found = decoder.info, model, decoder.tokenizer, decoder.declaration
        return examine_refused(error, *found)
    verdict, sentence = _verdict(decoder.info.id, measured)
    return Examination(
        verdict=verdict,
        sentence=sentence,
        name=decoder.info.id,
        model=model_facts(
            model,
            decoder.tokenizer,
            decoder.info,
            decoder.declaration,
            decoder.readout.vocab_size,
            None if decoder.labels is None else decoder.labels.names,
        ),
        layers=layer_facts(model, stream),
        readout=readout_facts(model, decoder.verified),
        blocks=block_facts(decoder.sublayers),
        fidelity=measured.fidelity,
        precision=precision_cost(decoder, measured.traces),
        memory=memory_estimate(decoder, min(n_tokens, decoder.context or n_tokens)),
        batch_safe=decoder.batch_safe,
        warnings=measured.warnings,
        versions=versions(),
    )


def examine_refused(
    error: Exception,
    source: Source | ModelInfo,
    model: nn.Module | None = None,
    tokenizer: Any = None,
    declaration: Declaration | None = None,
) -> Examination:
    """What could be found out about a model that was refused.

    Args:
        error: The refusal.
        source: Where the model came from; at least its name.
        model: The model, if it got as far as being loaded.
        tokenizer: Its tokenizer, or None.
        declaration: What was said about it.
    """
    facts = None
    if model is not None:
        given = declaration or Declaration()
        facts = model_facts(model, tokenizer, source, given)
    return Examination(
        verdict="refused",
        sentence=f"Refused: {error}",
        name=source.id,
        model=facts,
        tried=error.tried if isinstance(error, UnsupportedModelError) else {},
        versions=versions(),
    )


def _verdict(name: str, measured: Measured) -> tuple[Verdict, str]:
    """The verdict and its sentence."""
    found = measured.fidelity
    if measured.refusal is not None:
        return "refused", f"Refused: {measured.refusal}"
    if found.power < POWER_NEEDED:
        return "undecided", (
            f"Undecided: nothing speaks against the readout of {name}, but even a "
            f"wrong state misses by only {found.power:.2g} tolerances "
            f"({POWER_NEEDED:g} are needed to tell)."
        )
    what, missed = "distribution", f"total variation {found.own.largest:.1g}"
    if found.measure == "logit":
        what, missed = "logits", f"difference {found.own.largest:.1g}"
    return "exact", (
        f"Exact: the last state of {name}, read with the model's own head, gives the "
        f"model's own {what} ({missed} over {found.n_positions} predictions, tolerance "
        f"{found.tolerance:.1g})."
    )
