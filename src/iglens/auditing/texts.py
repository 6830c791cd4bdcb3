"""The one verb of this room: credits of the readout beside causal effects."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ..errors import ArgumentError
from ..explaining.lenses.file import load_lens
from ..gating import TOLERANCE, effects_without
from ..gating.beside import check_by, paths
from ..gating.stage import Progress, Stage, silent
from ..methods import AbstractMethod, chosen_methods
from ..model.decoder import Decoder
from ..model.intervene import check_at
from ..model.text import Prompt
from ..readout.lens import AbstractLens
from ..records import Unit
from ..records.audit import Audit, Curve
from .agreement import correlations, shuffled_targets
from .by_methods import numbers_of
from .curves import curves as curves_of
from .curves import runs_of_curves
from .identities import measured, runs_of_identities
from .prepared import Manner, Targets, Texts
from .random_weights import random_weights

NULLS = {
    "shuffled": (True, False),
    "random-weights": (False, True),
    "both": (True, True),
    "none": (False, False),
}
"""Whether correlations are compared to shuffled targets, and to random weights."""


def audit(
    decoder: Decoder,
    prompts: Sequence[Prompt],
    *,
    target: Targets = None,
    by: str = "layer",
    unit: Unit | None = None,
    at: str = "all",
    ablation: str = "skip",
    gates: bool = False,
    curves: bool = False,
    tolerance: float = TOLERANCE,
    methods: str | Sequence[str] = (),
    lens: str | Path | AbstractLens = "logit",
    n_steps: int = 32,
    nulls: str = "shuffled",
    seed: int = 0,
    chat: bool = False,
    special_tokens: bool = True,
    strict: bool = True,
    progress: Progress = silent,
) -> Audit:
    """Compare what layers are credited with to what happens without them.

    For every prompt one token is explained: what comes next. Every block (or part of
    one) is then taken out in a run of its own, and the target's level read from the
    model's own output.

    Args:
        decoder: The model.
        prompts: Texts, or lists of token ids.
        target: What is explained: one for all prompts, or one for each; None for the
            token that the model goes on with.
        by: "layer", or "sublayer" for attention, MLP and what else blocks consist of.
        unit: Unit of credits and effects; None for the model's usual one.
        at: Take blocks out at "all" tokens, or at the "last" one.
        ablation: "skip": the output is the input; "mean": the update is its mean over
            all tokens of the prompts but first ones.
        gates: Integrate the gate path too.
        curves: Take segments out, and put them back, by size of credit, effect and
            update, and in random order.
        tolerance: What a gate path may be off by.
        methods: Relatives of IG-Lens whose layers are held against the effects too:
            "all", or names out of `iglens.methods.METHODS`.
        lens: A fitted lens for those that need one.
        n_steps: Steps of those that integrate.
        nulls: What correlations are compared to: "shuffled" for credits of the other
            texts' targets, "random-weights" for a model of the same class that
            learned nothing, "both", or "none".
        seed: What random orders, drawn texts and random weights are made from.
        chat: Put prompts through the chat template.
        special_tokens: Let the tokenizer add what it adds to a text.
        strict: Refuse what cannot be verified instead of flagging it.
        progress: Told how many runs are done.

    Raises:
        UnsupportedModelError: If skipping a block of this model has no plain meaning.
        IGLensError: If an argument does not fit, or as `explain` does.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> sizes = {"n_layer": 2, "n_embd": 8, "n_head": 2, "vocab_size": 20}
        >>> decoder = Decoder(GPT2LMHeadModel(GPT2Config(**sizes)))
        >>> found = audit(decoder, [[3, 1, 4]], target=5)
        >>> found.credits.shape
        (1, 2)
        >>> bool(abs(found.effects.effects - found.credits)[0, 1] < 1e-6)
        True
    """
    manner = _manner(prompts, by, unit, at, ablation, chat, special_tokens, strict)
    picked = _picked(methods, manner)
    shuffled, random = _nulls(nulls)
    stage = Stage(progress, "Runs")
    texts = Texts.of(decoder, prompts, target, manner, stage)
    stage.total = _runs(texts, curves)
    effects = effects_without(texts.subjects, texts.results, manner.kind)
    numbers = {"credit": effects.credits, "update size": texts.update_sizes()}
    drawn: tuple[Curve, ...] = ()
    if curves:
        drawn = _curves(texts, numbers | {"effect": effects.effects}, seed)
    identities = measured(texts)
    sizes, path, reasons = numbers["update size"], None, dict[str, str]()
    if gates:
        own = texts.plainly(Stage(progress, "Gate path"))
        path = paths(own, texts.results, tolerance)
        numbers["gate path"] = path.effects
    if picked:
        fitted = lens if isinstance(lens, AbstractLens) else load_lens(decoder, lens)
        done = Stage(progress, "Methods")
        given, reasons = numbers_of(texts, picked, fitted, n_steps, done)
        numbers |= given
    agreed = correlations(
        numbers,
        effects,
        {"credit": shuffled_targets(texts, effects)} if shuffled else {},
        random_weights(texts, seed, progress) if random else {},
        reasons,
        seed,
    )
    return Audit(effects, sizes, identities, agreed, drawn, path, seed)


def _picked(methods: str | Sequence[str], manner: Manner) -> list[AbstractMethod]:
    """The methods to hold against effects.

    Raises:
        ArgumentError: If one is unknown, or effects are not of layers.
    """
    if not methods:
        return []
    if manner.by != "layer":
        raise ArgumentError(
            f"`methods` are held against the effects of layers; with `by` "
            f"{manner.by!r} there are none. Leave one of the two out."
        )
    return chosen_methods(methods)


def _nulls(name: str) -> tuple[bool, bool]:
    """Whether there are nulls of shuffled targets, and of random weights.

    Raises:
        ArgumentError: If the name is unknown.
    """
    if name not in NULLS:
        raise ArgumentError(f"`nulls` is {name!r}; known are {', '.join(NULLS)}.")
    return NULLS[name]


def _manner(
    prompts: Sequence[Prompt],
    by: str,
    unit: Unit | None,
    at: str,
    ablation: str,
    chat: bool,
    special_tokens: bool,
    strict: bool,
) -> Manner:
    """How texts are audited; what no audit is of is refused before the model runs.

    Raises:
        ArgumentError: If there is no text, or a name is unknown.
    """
    if not prompts:
        raise ArgumentError("`prompts` is empty: name at least one text.")
    if ablation not in ("skip", "mean"):
        raise ArgumentError(f"`ablation` is {ablation!r}; known are skip, mean.")
    return Manner(
        by=check_by(by),
        unit=unit,
        at=check_at(at),
        kind="mean" if ablation == "mean" else "skip",
        chat=chat,
        special_tokens=special_tokens,
        strict=strict,
    )


def _runs(texts: Texts, curves: bool) -> int:
    """Forward passes that effects, identities and curves take."""
    n_columns = texts.n_columns
    each = n_columns + 2 + (runs_of_curves(n_columns, 3) if curves else 0)
    each += runs_of_identities(texts.decoder.n_layers)
    return len(texts.subjects) * each


def _curves(
    texts: Texts, numbers: dict[str, Float[np.ndarray, "texts segments"]], seed: int
) -> tuple[Curve, ...]:
    """Deletion and insertion by every order."""
    found = [
        curves_of(
            subject, {name: own[text] for name, own in numbers.items()}, seed + text
        )
        for text, subject in enumerate(texts.subjects)
    ]
    return tuple(
        Curve(kind, order, np.stack([own[kind, order] for own in found]))
        for kind, order in found[0]
    )
