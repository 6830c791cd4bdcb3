"""From a prompt to an attribution, in one call."""

from collections.abc import Sequence
from pathlib import Path

import torch

from ..attribution import AbstractEstimator, Gradient, Observed
from ..attribution.estimator import Rule
from ..attribution.path import Level
from ..errors import ArgumentError
from ..model.decoder import Decoder
from ..model.generate import Sampling
from ..model.text import Prompt
from ..readout import TOLERANCE
from ..readout.lens import AbstractLens
from ..records import Attribution, Target, Unit
from .plan import TargetLike, prepare
from .reader import Reader
from .start import StartLike


def explain(
    decoder: Decoder,
    prompt: Prompt,
    *,
    target: TargetLike | Sequence[TargetLike] | None = None,
    answer: str | Sequence[int] | None = None,
    contrast: str | int | Target | None = None,
    positions: str | Sequence[int] = "answer",
    layers: str | Sequence[int] = "all",
    by: Level = "layer",
    top: int | None = None,
    unit: Unit | None = None,
    baseline: StartLike | Sequence[StartLike] = "embedding",
    lens: str | Path | AbstractLens = "logit",
    estimator: str | AbstractEstimator = "observed",
    n_steps: int = 64,
    rule: Rule = "midpoint",
    max_new_tokens: int = 8,
    sampling: Sampling | None = None,
    chat: bool = False,
    system: str | None = None,
    special_tokens: bool = True,
    diagnostics: bool | None = None,
    tolerance: float = TOLERANCE,
    precision: torch.dtype | None = None,
    strict: bool = True,
) -> Attribution:
    """Between which layers did each token's probability become readable?

    By default the model continues the prompt greedily and every token it adds is
    explained. An `answer` is explained instead of a continuation; a `target` is
    explained as the next token, and nothing is generated. Of a classifier the label it
    finds most probable is explained, or the labels named as `target`.

    Args:
        decoder: The model.
        prompt: Text, token ids, or (with `chat`) messages.
        target: One or several next tokens: text (a set as "a|b"), id, or `Target`;
            "@entropy" or "@kl" (to the final distribution) for the whole distribution;
            a `Scalar` of your own.
        answer: Text or ids to explain as the continuation.
        contrast: Explain the level of every target minus that of this one; "@rival"
            for the most probable other token at each position.
        positions: "answer", "prompt", "all", a slice as "5:9", or indices of
            predicted tokens.
        layers: "all", "1,5,30", a slice as "::4", or numbers.
        by: "layer"; "sublayer" for attention, MLP and whatever else a block consists
            of; "head", "neuron" or "source" for what is inside these, in
            `Attribution.components`.
        top: Parts to keep per row and segment there; None for all.
        unit: "probability", "log_probability", "log_odds" or "logit"; natural
            logarithms. None for probability, or the logit of a reward model.
        baseline: "embedding", "zero", "mean", "paper-mean", "corpus:FILE",
            "prompt:TEXT", a `CorpusMean`, or a vector; several are averaged.
        lens: "logit" for the head alone, "auto" for the lens fitted last on this model,
            a file, or a lens.
        estimator: "observed" (exact), "gradient", or an estimator.
        n_steps: Steps of the gradient estimator.
        rule: Its rule: "midpoint", "trapezoid" or "gauss-legendre".
        max_new_tokens: Tokens to generate at most.
        sampling: How to sample; None for greedy.
        chat: Put the prompt through the tokenizer's chat template.
        system: System message of the chat.
        special_tokens: Let the tokenizer add what it adds to a text.
        diagnostics: Ranks, lens divergence and top tokens; None for up to 64 rows.
        tolerance: Probability below which points may be finished early, with an upper
            bound for a level; 0 reads all in full. See `iglens.attribute`.
        precision: Dtype of the readout, `torch.float64` for more than float32.
        strict: Refuse what cannot be verified instead of flagging it.

    Returns:
        One row per explained token.

    Raises:
        IGLensError: If an argument does not fit, or the result would not be the
            model's own probability; the subclass and the message say what and why.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> sizes = {"n_layer": 2, "n_embd": 8, "n_head": 2, "vocab_size": 20}
        >>> config = GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)
        >>> decoder = Decoder(GPT2LMHeadModel(config))
        >>> result = explain(decoder, [3, 1, 4], positions="all", max_new_tokens=0)
        >>> result.layers, result.positions.tolist()
        ((1, 2), [1, 2])
    """
    rule_of_credit = estimator_of(estimator, n_steps, rule)
    reader = Reader(
        unit,
        baseline,
        lens,
        rule_of_credit,
        precision,
        by=by,
        top=top,
        tolerance=tolerance,
    )
    reader = reader.check(decoder)  # before the model runs
    asked = prepare(
        decoder,
        prompt,
        target=target,
        answer=answer,
        contrast=contrast,
        positions=positions,
        layers=layers,
        by=by,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        chat=chat,
        system=system,
        special_tokens=special_tokens,
    )
    return reader.of(decoder, asked, diagnostics=diagnostics, strict=strict)


def estimator_of(
    estimator: str | AbstractEstimator, n_steps: int, rule: Rule
) -> AbstractEstimator:
    """An estimator by its name."""
    if isinstance(estimator, AbstractEstimator):
        return estimator
    if estimator == "observed":
        return Observed()
    if estimator == "gradient":
        return Gradient(n_steps, rule)
    raise ArgumentError(f"`estimator` is {estimator!r}; known are observed, gradient.")
