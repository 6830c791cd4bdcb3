"""Several methods on one token, each run by itself and counted."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ..attribution import Observed, attribute
from ..errors import ArgumentError, UnsupportedModelError
from ..explaining import Prepared, prepare
from ..explaining.lenses.file import load_lens
from ..explaining.plan import TargetLike
from ..gating import effects_without, gated_results
from ..model.decoder import Decoder
from ..model.intervene import Intervention
from ..model.text import Prompt
from ..readout.lens import AbstractLens
from ..records import Attribution
from ..records.comparison import Audited, Comparison
from .case import AbstractMethod
from .evaluations import Evaluations
from .registry import chosen_methods
from .setting import setting_of

Told = Callable[[str], None]
"""Is told the title of every method before it runs."""


def compare(
    decoder: Decoder,
    prompt: Prompt,
    *,
    target: TargetLike | None = None,
    methods: str | Sequence[str] = "all",
    lens: str | Path | AbstractLens = "logit",
    n_steps: int = 32,
    precision: torch.dtype | None = None,
    audit: bool = True,
    chat: bool = False,
    system: str | None = None,
    special_tokens: bool = True,
    strict: bool = True,
) -> Comparison:
    """Run the relatives of IG-Lens side by side on the token after a prompt.

    Args:
        decoder: The model.
        prompt: Text, token ids, or (with `chat`) messages.
        target: The next token; None for the one the model finds most probable.
        methods: "all", or names out of `iglens.methods.METHODS`.
        lens: A fitted lens for the methods that need one.
        n_steps: Steps of the methods that integrate.
        precision: Dtype of the readout; None for float32 at least.
        audit: Skip every layer too, and say how far methods agree with that.
        chat: Put the prompt through the tokenizer's chat template.
        system: System message of the chat.
        special_tokens: Let the tokenizer add what it adds to a text.
        strict: Refuse what cannot be verified instead of flagging it.

    Returns:
        What each method says in one form, with the error of its sum and its cost.

    Raises:
        ArgumentError: If a method is unknown, or the target is no token or set.
        FidelityError: If reading the last state misses the model's own logits.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> sizes = {"n_layer": 2, "n_embd": 8, "n_head": 2, "vocab_size": 20}
        >>> decoder = Decoder(GPT2LMHeadModel(GPT2Config(**sizes)))
        >>> found = compare(decoder, [3, 1, 4], methods="ig-lens,dla")
        >>> found["ig-lens"].found.unit, found["dla"].found.unit
        ('probability', 'logit')
    """
    picked = chosen_methods(methods)
    asked = prepare(
        decoder,
        prompt,
        target=target,
        max_new_tokens=1,
        chat=chat,
        system=system,
        special_tokens=special_tokens,
    )
    return compared(
        decoder,
        asked,
        picked,
        lens=lens if isinstance(lens, AbstractLens) else load_lens(decoder, lens),
        n_steps=n_steps,
        precision=precision,
        audit=audit,
        strict=strict,
    )


def compared(
    decoder: Decoder,
    asked: Prepared,
    methods: Sequence[AbstractMethod],
    *,
    lens: AbstractLens | None = None,
    n_steps: int = 32,
    precision: torch.dtype | None = None,
    audit: bool = True,
    strict: bool = True,
    tell: Told = lambda title: None,
) -> Comparison:
    """The same on a text that was run; see `compare`.

    Args:
        decoder: The model.
        asked: The text, and the one token in it.
        methods: What to run.
        lens: A fitted lens, or None.
        n_steps: Steps of the methods that integrate.
        precision: Dtype of the readout.
        audit: Skip every layer too, and say how far methods agree with that.
        strict: Refuse what cannot be verified.
        tell: Called before every method.

    Raises:
        ArgumentError: If there is more than one row, or its target is no token or set.
        FidelityError: If reading the last state misses the model's own logits.
    """
    known = _attribution(asked, precision, strict)
    setting = setting_of(
        decoder,
        known,
        lens=lens,
        n_steps=n_steps,
        precision=precision,
        strict=strict,
    )
    setting.warm(methods)
    entries = []
    for method in methods:
        tell(method.title)
        entries.append(setting.entry(method))
    audited = None
    if audit:
        tell("skipped layers")
        audited = _audited(decoder, known)
    last = asked.trace.states[-1, :1]
    (log_odds,) = setting.case().levels(last, unit="log_odds")
    return Comparison(
        token_texts=known.token_texts,
        position=setting.position,
        target=setting.target,
        n_layers=decoder.n_layers,
        baseline=float(known.baseline[0]),
        final=float(known.final[0]),
        log_odds=float(log_odds),
        noise_floor=float(known.noise_floor[0]),
        fidelity=float(known.fidelity[0]),
        entries=tuple(entries),
        provenance=known.provenance,
        audited=audited,
        warnings=known.warnings,
    )


def _audited(decoder: Decoder, known: Attribution) -> Audited:
    """What the token loses without each layer, or why that cannot be had."""
    evaluations, found, reason = Evaluations(), None, None
    with evaluations.watching(decoder):
        try:
            gated = Intervention.of(decoder)
            subjects = gated_results(decoder, gated, [known])
            found = effects_without(subjects, [known])
        except UnsupportedModelError as error:
            reason = str(error)
        cost = evaluations.cost
    return Audited(found, reason, cost)


def _attribution(
    asked: Prepared, precision: torch.dtype | None, strict: bool
) -> Attribution:
    """What everything is held against, checked.

    Raises:
        ArgumentError: If it is not one probability.
    """
    if asked.trace.measure != "total_variation":
        raise ArgumentError(
            "These logits are of no distribution; methods are compared in probability."
        )
    known = attribute(
        asked.trace,
        asked.targets,
        estimator=Observed(),
        diagnostics=False,
        precision=precision,
        strict=strict,
    )
    if known.n_rows != 1:
        raise ArgumentError(
            f"Methods are compared on one token; these are {known.n_rows}. Pass one "
            "`target`, or one of the `positions`."
        )
    target = known.targets[0]
    if target.kind not in ("token", "set"):
        raise ArgumentError(
            f"Methods are compared on the probability of a token or a set of tokens; "
            f"{target.name!r} is neither."
        )
    return known
