"""The one verb of this room: credits of the readout beside causal effects."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ..errors import ArgumentError
from ..gating import TOLERANCE, effects_without
from ..gating.beside import check_by, paths
from ..gating.stage import Progress, Stage, silent
from ..model.decoder import Decoder
from ..model.intervene import check_at
from ..model.text import Prompt
from ..records import Unit
from ..records.audit import Audit, Curve
from .agreement import correlations, shuffled_targets
from .curves import curves as curves_of
from .curves import runs_of_curves
from .prepared import Manner, Targets, Texts


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
        seed: What random orders and drawn texts are made from.
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
    stage = Stage(progress, "Runs")
    texts = Texts.of(decoder, prompts, target, manner, stage)
    stage.total = _runs(texts, curves)
    effects = effects_without(texts.subjects, texts.results, manner.kind)
    numbers = {"credit": effects.credits, "update size": texts.update_sizes()}
    drawn: tuple[Curve, ...] = ()
    if curves:
        drawn = _curves(texts, numbers | {"effect": effects.effects}, seed)
    path = None
    if gates:
        path = paths(
            texts.plainly(Stage(progress, "Gate path")), texts.results, tolerance
        )
        numbers["gate path"] = path.effects
    nulls = {"credit": shuffled_targets(texts, effects)}
    agreed = correlations(numbers, effects, nulls, seed)
    return Audit(effects, numbers["update size"], agreed, drawn, path, seed)


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
    """Forward passes that effects and curves take."""
    n_columns = texts.n_columns
    each = n_columns + 2 + (runs_of_curves(n_columns, 3) if curves else 0)
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
