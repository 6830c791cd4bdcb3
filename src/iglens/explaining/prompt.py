"""From a prompt to an attribution, in one call."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from ..attribution import AbstractEstimator, Gradient, Observed, attribute
from ..attribution.baseline import check_baseline
from ..attribution.estimator import Rule
from ..attribution.path import path_layers
from ..errors import ArgumentError
from ..model.decoder import Decoder
from ..model.generate import Sampling
from ..model.text import Prompt
from ..records import Attribution, Target, Unit, check_unit
from .choices import choose_layers, choose_positions

TargetLike = str | int | Target
"""A token by its text, by its id, or resolved; text may be a set as in "a|b"."""


@dataclass(frozen=True)
class Plan:
    """The text to run, and what to explain in it.

    Attributes:
        ids: Token ids of prompt and continuation.
        positions: Indices of the predicted tokens.
        targets: What to explain there; None for the tokens of the text.
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    targets: tuple[Target, ...] | None


def explain(
    decoder: Decoder,
    prompt: Prompt,
    *,
    target: TargetLike | Sequence[TargetLike] | None = None,
    answer: str | Sequence[int] | None = None,
    positions: str | Sequence[int] = "answer",
    layers: str | Sequence[int] = "all",
    unit: Unit = "probability",
    baseline: str | Tensor | np.ndarray = "embedding",
    estimator: str | AbstractEstimator = "observed",
    n_steps: int = 64,
    rule: Rule = "midpoint",
    max_new_tokens: int = 8,
    sampling: Sampling | None = None,
    chat: bool = False,
    system: str | None = None,
    special_tokens: bool = True,
    diagnostics: bool | None = None,
    precision: torch.dtype | None = None,
    strict: bool = True,
) -> Attribution:
    """Between which layers did each token's probability become readable?

    By default the model continues the prompt greedily and every token it adds is
    explained. An `answer` is explained instead of a continuation; a `target` is
    explained as the next token, and nothing is generated.

    Args:
        decoder: The model.
        prompt: Text, token ids, or (with `chat`) messages.
        target: One or several next tokens: text (a set as "a|b"), id, or `Target`.
        answer: Text or ids to explain as the continuation.
        positions: "answer", "prompt", "all", a slice as "5:9", or indices of
            predicted tokens.
        layers: "all", "1,5,30", a slice as "::4", or numbers.
        unit: "probability", "log_probability" or "log_odds"; natural logarithms.
        baseline: "embedding", "zero", "mean", "paper-mean", or a vector.
        estimator: "observed" (exact), "gradient", or an estimator.
        n_steps: Steps of the gradient estimator.
        rule: Its rule: "midpoint", "trapezoid" or "gauss-legendre".
        max_new_tokens: Tokens to generate at most.
        sampling: How to sample; None for greedy.
        chat: Put the prompt through the tokenizer's chat template.
        system: System message of the chat.
        special_tokens: Let the tokenizer add what it adds to a text.
        diagnostics: Ranks, lens divergence and top tokens; None for up to 64 rows.
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
    chosen = choose_layers(layers, decoder.n_layers)
    rule_of_credit = _estimator(estimator, n_steps, rule)
    start = torch.from_numpy(baseline) if isinstance(baseline, np.ndarray) else baseline
    check_unit(unit)  # before the model runs
    check_baseline(start)
    path_layers(decoder.n_layers, chosen)
    prompt_ids = decoder.encode(
        prompt, chat=chat, system=system, special_tokens=special_tokens
    )
    plan = _plan(
        decoder, prompt_ids, target, answer, positions, max_new_tokens, sampling
    )
    trace = decoder.trace(
        plan.ids,
        plan.positions,
        layers=chosen,
        prompt=prompt if isinstance(prompt, str) else None,
        settings={
            "prompt_tokens": len(prompt_ids),
            "chat": chat,
            "system": system,
            "max_new_tokens": max_new_tokens,
            "sampling": None if sampling is None else asdict(sampling),
        },
    )
    return attribute(
        trace,
        plan.targets,
        baseline=start,
        unit=unit,
        estimator=rule_of_credit,
        diagnostics=diagnostics,
        precision=precision,
        strict=strict,
    )


def _estimator(
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


def _plan(
    decoder: Decoder,
    prompt_ids: list[int],
    target: TargetLike | Sequence[TargetLike] | None,
    answer: str | Sequence[int] | None,
    positions: str | Sequence[int],
    max_new_tokens: int,
    sampling: Sampling | None,
) -> Plan:
    """The text to run: with an answer, with what the model says, or as it is."""
    if target is not None and answer is not None:
        raise ArgumentError("Pass `target` (next token) or `answer` (text), not both.")
    if max_new_tokens < 0:
        raise ArgumentError(f"`max_new_tokens` is {max_new_tokens}; it must be >= 0.")
    n_prompt, ids = len(prompt_ids), tuple(prompt_ids)
    named = positions if isinstance(positions, str) else None
    if target is not None:
        targets = _targets(decoder, target, prompt_ids)
        at = [n_prompt] if named == "answer" else None
        chosen = at or choose_positions(positions, n_prompt, n_prompt)
        return Plan(ids, tuple(chosen), targets)
    if answer is not None:
        ids += tuple(decoder.encode_answer(prompt_ids, answer))
    elif max_new_tokens and named in ("answer", "all"):
        ids += tuple(decoder.generate(prompt_ids, max_new_tokens, sampling))
    return Plan(ids, tuple(choose_positions(positions, n_prompt, len(ids))), None)


def _targets(
    decoder: Decoder,
    target: TargetLike | Sequence[TargetLike],
    prompt_ids: Sequence[int],
) -> tuple[Target, ...]:
    """Targets, resolved with the model's own tokenizer."""
    items = [target] if isinstance(target, str | int | Target) else list(target)
    if not items:
        raise ArgumentError("`target` is empty: name at least one token.")
    return tuple(
        item if isinstance(item, Target) else decoder.target(item, prompt_ids)
        for item in items
    )
