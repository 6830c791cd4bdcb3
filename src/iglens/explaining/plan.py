"""From what a user asks to a trace and its targets: which text, where, what."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ..attribution import Scalar
from ..attribution.path import Level, check_level, path_layers
from ..attribution.rows import Explained, Targets, against, against_best_rival
from ..errors import ArgumentError
from ..model.decoder import Decoder
from ..model.generate import Sampling
from ..model.text import Prompt
from ..records import ENTROPY, KL_TO_FINAL, Target
from ..trace import Trace
from .choices import choose_layers, choose_positions

TargetLike = str | int | Target | Scalar
"""A token by its text, by its id, or resolved; text may be a set as in "a|b", or one
of `NAMED`; a scalar of one's own."""

NAMED = {"@entropy": ENTROPY, "@kl": KL_TO_FINAL}
"""Scalars of the whole distribution, by the names that stand for them in text."""

RIVAL = "@rival"
"""As a contrast: the most probable other token at each position."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A text that was run, and what is to be explained in it.

    Attributes:
        trace: States and logits at the explained positions.
        targets: What to explain there; None for the tokens of the text.
        prompt_ids: Token ids of the prompt alone.
    """

    trace: Trace
    targets: Targets
    prompt_ids: tuple[int, ...]


@dataclass(frozen=True)
class _Plan:
    """The text to run, and where to explain what."""

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    targets: tuple[Explained, ...] | None


def prepare(
    decoder: Decoder,
    prompt: Prompt,
    *,
    target: TargetLike | Sequence[TargetLike] | None = None,
    answer: str | Sequence[int] | None = None,
    contrast: str | int | Target | None = None,
    positions: str | Sequence[int] = "answer",
    layers: str | Sequence[int] = "all",
    by: Level = "layer",
    max_new_tokens: int = 8,
    sampling: Sampling | None = None,
    chat: bool = False,
    system: str | None = None,
    special_tokens: bool = True,
) -> Prepared:
    """Run the model once, for any number of questions about the same tokens.

    Arguments as in `explain`. What comes out feeds `attribute`, `flows`, `promotion`
    and `sensitivity` without running the model again.

    Raises:
        IGLensError: If an argument does not fit.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> sizes = {"n_layer": 2, "n_embd": 8, "n_head": 2, "vocab_size": 20}
        >>> decoder = Decoder(GPT2LMHeadModel(GPT2Config(**sizes)))
        >>> asked = prepare(decoder, [3, 1, 4], target=5)
        >>> asked.trace.positions.tolist(), asked.targets[0].ids
        ([3], (5,))
    """
    chosen = choose_layers(layers, decoder.n_layers)
    path_layers(decoder.n_layers, chosen)
    prompt_ids = decoder.encode(
        prompt, chat=chat, system=system, special_tokens=special_tokens
    )
    rival = None
    if contrast is not None and contrast != RIVAL:
        rival = _target(decoder, contrast, prompt_ids)  # before the model runs
    plan = _plan(
        decoder, prompt_ids, target, answer, positions, max_new_tokens, sampling
    )
    trace = decoder.trace(
        plan.ids,
        plan.positions,
        layers=chosen,
        by=check_level(by),
        prompt=prompt if isinstance(prompt, str) else None,
        settings={
            "prompt_tokens": len(prompt_ids),
            "layers": chosen,
            "by": by,
            "chat": chat,
            "system": system,
            "max_new_tokens": max_new_tokens,
            "sampling": None if sampling is None else asdict(sampling),
        },
    )
    targets: Targets = plan.targets
    if contrast is not None:
        targets = _contrasts(trace, plan.targets, rival)
    return Prepared(trace, targets, tuple(prompt_ids))


def _contrasts(
    trace: Trace, targets: tuple[Explained, ...] | None, rival: Explained | None
) -> list[tuple[int, Target]]:
    """Every target against the other side, or its best rival."""
    if any(isinstance(item, Scalar) for item in (*(targets or ()), rival)):
        raise ArgumentError("A scalar of your own has no contrast; leave one out.")
    tokens = None if targets is None else [t for t in targets if isinstance(t, Target)]
    if isinstance(rival, Target):
        return against(trace, rival, tokens)
    return against_best_rival(trace, tokens)


def _plan(
    decoder: Decoder,
    prompt_ids: list[int],
    target: TargetLike | Sequence[TargetLike] | None,
    answer: str | Sequence[int] | None,
    positions: str | Sequence[int],
    max_new_tokens: int,
    sampling: Sampling | None,
) -> _Plan:
    """The text to run: with an answer, with what the model says, or as it is."""
    if target is not None and answer is not None:
        raise ArgumentError("Pass `target` (next token) or `answer` (text), not both.")
    if max_new_tokens < 0:
        raise ArgumentError(f"`max_new_tokens` is {max_new_tokens}; it must be >= 0.")
    if decoder.labels is not None:
        return _plan_of_labels(decoder, tuple(prompt_ids), target, answer, positions)
    n_prompt, ids = len(prompt_ids), tuple(prompt_ids)
    named = positions if isinstance(positions, str) else None
    if target is not None:
        targets = _targets(decoder, target, prompt_ids)
        at = [n_prompt] if named == "answer" else None
        chosen = at or choose_positions(positions, n_prompt, n_prompt)
        return _Plan(ids, tuple(chosen), targets)
    if answer is not None:
        ids += tuple(decoder.encode_answer(prompt_ids, answer))
    elif max_new_tokens and named in ("answer", "all"):
        ids += tuple(decoder.generate(prompt_ids, max_new_tokens, sampling))
    return _Plan(ids, tuple(choose_positions(positions, n_prompt, len(ids))), None)


def _plan_of_labels(
    decoder: Decoder,
    ids: tuple[int, ...],
    target: TargetLike | Sequence[TargetLike] | None,
    answer: str | Sequence[int] | None,
    positions: str | Sequence[int],
) -> _Plan:
    """The text as it is: a classifier answers once, and says nothing itself."""
    if answer is not None:
        raise ArgumentError(
            "A classifier answers with a label: pass the whole text as the prompt, and "
            "the label as `target`."
        )
    chosen: Sequence[int] = decoder.explainable(ids)
    if positions not in ("answer", "all"):
        chosen = choose_positions(positions, len(ids), len(ids) + 1)
    targets = None if target is None else _targets(decoder, target, ids)
    return _Plan(ids, tuple(chosen), targets)


def _targets(
    decoder: Decoder,
    target: TargetLike | Sequence[TargetLike],
    prompt_ids: Sequence[int],
) -> tuple[Explained, ...]:
    """Targets, resolved with the model's own tokenizer."""
    if isinstance(target, str | int | Target | Scalar):
        return (_target(decoder, target, prompt_ids),)
    if not target:
        raise ArgumentError("`target` is empty: name at least one token.")
    return tuple(_target(decoder, item, prompt_ids) for item in target)


def _target(
    decoder: Decoder, item: TargetLike, prompt_ids: Sequence[int]
) -> Target | Scalar:
    """One target: resolved already, by a name of ours, or by its text or id."""
    if isinstance(item, Target | Scalar):
        return item
    if isinstance(item, str) and item in NAMED:
        return NAMED[item]
    return decoder.target(item, prompt_ids)
