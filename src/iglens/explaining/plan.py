"""From what a user asks to a trace and its targets: which text, where, what."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..attribution import Scalar
from ..attribution.path import Level, check_level, path_layers
from ..attribution.rows import Explained, Targets, against, against_best_rival
from ..errors import ArgumentError
from ..model.decoder import Decoder
from ..model.generate import Sampling
from ..model.text import Prompt
from ..records import ENTROPY, KL_TO_FINAL, Provenance, Target
from ..trace import Trace
from .choices import choose_layers, choose_positions

TargetLike = str | int | Target | Scalar
"""A token by its text, by its id, or resolved; text may be a set as in "a|b", or one
of `NAMED`; a scalar of one's own."""

NAMED = {"@entropy": ENTROPY, "@kl": KL_TO_FINAL}
"""Scalars of the whole distribution, by the names that stand for them in text."""

RIVAL = "@rival"
"""As a contrast: the most probable other token at each position."""


_Text = tuple[tuple[int, ...], tuple[int, ...], tuple[Explained, ...] | None]
"""Tokens of a text, positions in it, and what is explained there."""


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


@dataclass(frozen=True, eq=False)
class Plan:
    """What to run, and what to explain there, before the model has run.

    Attributes:
        prompt_ids: Token ids of the prompt alone.
        ids: Token ids of the text to run.
        positions: Indices of predicted tokens.
        targets: What to explain there; None for the tokens of the text.
        rival: What every target is contrasted with; `RIVAL` for the best other token.
        layers: Layers to stop at.
        by: How far down credits go.
        prompt: The prompt as the user gave it, if that was text.
        settings: What else a rerun needs.
    """

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    positions: tuple[int, ...]
    targets: Sequence[Explained] | Sequence[tuple[int, Explained]] | None
    rival: Explained | str | None
    layers: list[int] | None
    by: Level
    prompt: str | None
    settings: dict[str, object]

    def run(self, decoder: Decoder) -> Prepared:
        """Run the model on it."""
        trace = decoder.trace(
            self.ids,
            self.positions,
            layers=self.layers,
            by=self.by,
            prompt=self.prompt,
            settings=self.settings,
        )
        return self.on(trace)

    def on(self, trace: Trace) -> Prepared:
        """What was planned, once the model has run."""
        targets: Targets = self.targets
        if self.rival is not None:
            rival = None if self.rival == RIVAL else self.rival
            assert not isinstance(rival, str)  # `RIVAL` is the only name
            own = self.targets or ()
            plain = [t for t in own if isinstance(t, Target | Scalar)]
            targets = _contrasts(trace, tuple(plain) or None, rival)
        return Prepared(trace, targets, self.prompt_ids)


def run_plans(decoder: Decoder, plans: Sequence[Plan]) -> list[Prepared]:
    """Run the model once on several plans of the same layers and level."""
    traces = decoder.trace_many(
        [plan.ids for plan in plans],
        [plan.positions for plan in plans],
        layers=plans[0].layers,
        by=plans[0].by,
    )
    return [
        plan.on(replace(trace, provenance=_of_plan(trace.provenance, plan)))
        for trace, plan in zip(traces, plans, strict=True)
    ]


def _of_plan(provenance: Provenance, plan: Plan) -> Provenance:
    """The provenance of one text of several."""
    settings = provenance.settings | plan.settings
    return replace(provenance, prompt=plan.prompt, settings=settings)


def prepare(decoder: Decoder, prompt: Prompt, **question: Any) -> Prepared:
    """Run the model once, for any number of questions about the same tokens.

    What comes out feeds `attribute`, `flows`, `promotion` and `sensitivity` without
    running the model again.

    Args:
        decoder: The model.
        prompt: Text, token ids, or (with `chat`) messages.
        question: `target`, `answer`, `contrast`, `positions`, `layers`, `by`,
            `max_new_tokens`, `sampling`, `chat`, `system` and `special_tokens` of
            `explain`.

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
    return planned(decoder, prompt, **question).run(decoder)


def planned(
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
) -> Plan:
    """What `prepare` runs; tokens that the model adds are generated here.

    Arguments as in `explain`.

    Raises:
        IGLensError: If an argument does not fit.
    """
    chosen = choose_layers(layers, decoder.n_layers)
    path_layers(decoder.n_layers, chosen)
    prompt_ids = decoder.encode(
        prompt, chat=chat, system=system, special_tokens=special_tokens
    )
    rival: Explained | str | None = contrast if contrast == RIVAL else None
    if contrast is not None and contrast != RIVAL:
        rival = _target(decoder, contrast, prompt_ids)  # before the model runs
    ids, positions_of, targets = _text(
        decoder, prompt_ids, target, answer, positions, max_new_tokens, sampling
    )
    settings: dict[str, object] = {
        "prompt_tokens": len(prompt_ids),
        "layers": chosen,
        "by": by,
        "chat": chat,
        "system": system,
        "max_new_tokens": max_new_tokens,
        "sampling": None if sampling is None else asdict(sampling),
    }
    shown = prompt if isinstance(prompt, str) else None
    return Plan(
        tuple(prompt_ids),
        ids,
        positions_of,
        targets,
        rival,
        chosen,
        check_level(by),
        shown,
        settings,
    )


def check_question(
    decoder: Decoder,
    *,
    target: TargetLike | Sequence[TargetLike] | None = None,
    contrast: str | int | Target | None = None,
    layers: str | Sequence[int] = "all",
    **others: Any,
) -> None:
    """Refuse what no text can be asked; see `planned`.

    Args:
        decoder: The model.
        target: What is explained, if it is said already.
        contrast: What it is against.
        layers: Layers to stop at.
        others: Arguments of `planned` that depend on the text.

    Raises:
        IGLensError: If a layer or a token is not there.
    """
    path_layers(decoder.n_layers, choose_layers(layers, decoder.n_layers))
    if target is not None:
        _targets(decoder, target, ())
    if contrast is not None and contrast != RIVAL:
        _target(decoder, contrast, ())


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


def _text(
    decoder: Decoder,
    prompt_ids: list[int],
    target: TargetLike | Sequence[TargetLike] | None,
    answer: str | Sequence[int] | None,
    positions: str | Sequence[int],
    max_new_tokens: int,
    sampling: Sampling | None,
) -> _Text:
    """The text to run: with an answer, with what the model says, or as it is."""
    if target is not None and answer is not None:
        raise ArgumentError("Pass `target` (next token) or `answer` (text), not both.")
    if max_new_tokens < 0:
        raise ArgumentError(f"`max_new_tokens` is {max_new_tokens}; it must be >= 0.")
    if decoder.labels is not None:
        return _text_of_labels(decoder, tuple(prompt_ids), target, answer, positions)
    n_prompt, ids = len(prompt_ids), tuple(prompt_ids)
    named = positions if isinstance(positions, str) else None
    if target is not None:
        targets = _targets(decoder, target, prompt_ids)
        at = [n_prompt] if named == "answer" else None
        chosen = at or choose_positions(positions, n_prompt, n_prompt)
        return (ids, tuple(chosen), targets)
    if answer is not None:
        ids += tuple(decoder.encode_answer(prompt_ids, answer))
    elif max_new_tokens and named in ("answer", "all"):
        ids += tuple(decoder.generate(prompt_ids, max_new_tokens, sampling))
    return (ids, tuple(choose_positions(positions, n_prompt, len(ids))), None)


def _text_of_labels(
    decoder: Decoder,
    ids: tuple[int, ...],
    target: TargetLike | Sequence[TargetLike] | None,
    answer: str | Sequence[int] | None,
    positions: str | Sequence[int],
) -> _Text:
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
    return (ids, tuple(chosen), targets)


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
