"""The gate path of a text's tokens, beside what the readout credits layers with."""

from collections.abc import Sequence

import numpy as np
import torch

from ..attribution import attribute
from ..attribution.path import Level
from ..errors import ArgumentError, FidelityError
from ..explaining import Prepared, prepare
from ..explaining.plan import TargetLike
from ..model.decoder import Decoder
from ..model.generate import Sampling
from ..model.intervene import Intervention
from ..model.text import Prompt
from ..records import Attribution, Target, Unit
from ..records.effects import Effects
from .path import TOLERANCE, gate_path
from .skipping import gated_results
from .stage import Progress, Stage, silent
from .subject import Gated


def gates(
    decoder: Decoder,
    prompt: Prompt,
    *,
    target: TargetLike | Sequence[TargetLike] | None = None,
    answer: str | Sequence[int] | None = None,
    contrast: str | int | Target | None = None,
    positions: str | Sequence[int] = "answer",
    by: str = "layer",
    unit: Unit | None = None,
    tolerance: float = TOLERANCE,
    max_new_tokens: int = 8,
    sampling: Sampling | None = None,
    chat: bool = False,
    system: str | None = None,
    special_tokens: bool = True,
    precision: torch.dtype | None = None,
    strict: bool = True,
    progress: Progress = silent,
) -> Effects:
    """What does every layer do to a token, through later layers too?

    All blocks are opened together, `h_l = (1 - g) h_(l-1) + g block_l(h_(l-1))`, from
    `g = 0`, where the head reads the embedding, to `g = 1`, the model. The effect of a
    layer is the integral of the level's derivative by its gate: effects add up to what
    credits add up to. Every row costs some hundred runs of the model.

    Arguments that `explain` has too mean the same.

    Args:
        decoder: The model.
        prompt: Text, token ids, or (with `chat`) messages.
        target: One or several next tokens.
        answer: Text or ids to explain as the continuation.
        contrast: What every target is held against.
        positions: Which predicted tokens.
        by: "layer", or "sublayer" for attention, MLP and what else blocks consist of.
        unit: Unit of credits and effects; None for the model's usual one.
        tolerance: What an effect, and the sum, may be off by in that unit.
        max_new_tokens: Tokens to generate at most.
        sampling: How to sample; None for greedy.
        chat: Put the prompt through the tokenizer's chat template.
        system: System message of the chat.
        special_tokens: Let the tokenizer add what it adds to a text.
        precision: Dtype of the readout that gives the credits.
        strict: Refuse what cannot be verified instead of flagging it.
        progress: Told how many runs are done.

    Returns:
        One row per explained token: effects, the readout's credits, and their
        difference, the ledger.

    Raises:
        ArgumentError: If an argument does not fit.
        FidelityError: If with `strict` the integral cannot be certified.
        UnsupportedModelError: If skipping a block of this model has no plain meaning.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> sizes = {"n_layer": 2, "n_embd": 8, "n_head": 2, "vocab_size": 20}
        >>> decoder = Decoder(GPT2LMHeadModel(GPT2Config(**sizes)))
        >>> found = gates(decoder, [3, 1, 4], target=5)
        >>> found.effects.shape, bool(abs(found.ledger.sum()) < 1e-6)
        ((1, 2), True)
    """
    level = check_by(by)
    asked = prepare(
        decoder,
        prompt,
        target=target,
        answer=answer,
        contrast=contrast,
        positions=positions,
        by=level,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        chat=chat,
        system=system,
        special_tokens=special_tokens,
    )
    return gates_of(
        decoder,
        asked,
        by=by,
        unit=unit,
        tolerance=tolerance,
        precision=precision,
        strict=strict,
        progress=progress,
    )


def gates_of(
    decoder: Decoder,
    asked: Prepared,
    *,
    by: str = "layer",
    unit: Unit | None = None,
    tolerance: float = TOLERANCE,
    precision: torch.dtype | None = None,
    strict: bool = True,
    progress: Progress = silent,
) -> Effects:
    """The same on a text that was run; see `gates`."""
    if not tolerance > 0:
        raise ArgumentError(f"`tolerance` is {tolerance}; it must be above 0.")
    level = check_by(by)
    gated = Intervention.of(decoder, parts=level == "sublayer")
    result = attribute(
        asked.trace,
        asked.targets,
        by=level,
        unit=decoder.unit(unit),
        diagnostics=False,
        precision=precision,
        strict=strict,
    )
    stage = Stage(progress, "Gate path")
    subjects = gated_results(decoder, gated, [result], done=stage)
    gated.check_parts(subjects[0].ids, decoder.readout.vocab_size)
    found = paths(subjects, [result], tolerance)
    if strict and not found.certified.all():
        raise FidelityError(
            f"{found.warnings[-1]} Raise `tolerance`, load the model in a wider "
            "`dtype`, or pass `strict=False` to see the numbers."
        )
    return found


def check_by(by: str) -> Level:
    """How far down gates go.

    Raises:
        ArgumentError: If there are no such gates.
    """
    if by not in ("layer", "sublayer"):
        raise ArgumentError(f"`by` is {by!r}; gates go by layer or sublayer.")
    return "sublayer" if by == "sublayer" else "layer"


def paths(
    subjects: Sequence[Gated], results: Sequence[Attribution], tolerance: float
) -> Effects:
    """The gate path of every row."""
    found = [gate_path(one, tolerance) for one in subjects]
    return Effects(
        kind="gates",
        at="all",
        effects=np.stack([path.effects.numpy() for path in found]),
        results=tuple(results),
        intact=np.array([path.intact for path in found]),
        removed=np.array([path.removed for path in found]),
        closed=np.array([path.closed for path in found]),
        apart=np.array([path.apart for path in found]),
        runs=tuple(path.runs for path in found),
        tolerance=tolerance,
    )
