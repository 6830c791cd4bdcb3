"""The one verb of this room: credits of the readout beside causal effects."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..attribution.attribute import attribute
from ..errors import ArgumentError, UnsupportedModelError
from ..explaining import Prepared, prepare
from ..explaining.plan import TargetLike
from ..model.decoder import Decoder
from ..model.intervene import Intervention, check_at
from ..model.text import Prompt
from ..records import Attribution, Target, Unit
from ..records.effects import Audit, Correlation, Curve, Effects, Kind
from .curves import curves, runs_of_curves
from .gates import TOLERANCE, GatePath, gate_path
from .ranks import correlation, spearman
from .subject import Gated, at_once

Progress = Callable[[str, int, int | None], None]
"""Told a stage, how much of it is done, and of how much, if that is known."""

MOST_NULLS = 20
"""Other texts' targets that a text's null is made of, at most."""


def audit(
    decoder: Decoder,
    prompts: Sequence[Prompt],
    *,
    target: TargetLike | Sequence[TargetLike] | None = None,
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
    progress: Progress = lambda stage, done, total: None,
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
    _check(prompts, by, ablation)
    place, targets = check_at(at), _one_each(target, len(prompts))
    gated = Intervention.of(decoder, parts=by == "sublayer")
    asked = [
        prepare(
            decoder,
            prompt,
            target=own,
            by="sublayer" if by == "sublayer" else "layer",
            max_new_tokens=1,
            chat=chat,
            special_tokens=special_tokens,
        )
        for prompt, own in zip(prompts, targets, strict=True)
    ]
    results = [_read(item, None, by, unit, strict) for item in asked]
    _check_segments(gated, results[0])
    texts = [_text(result) for result in results]
    gated.check_parts(texts[0], decoder.readout.vocab_size)
    means = gated.mean_updates(texts) if ablation == "mean" else None
    n_columns = len(gated.columns)
    each = n_columns + 2 + (runs_of_curves(n_columns, 3) if curves else 0)
    stage = _Stage(progress, "Runs", total=len(texts) * each)
    subjects = [
        Gated(
            gated,
            ids,
            result.targets[0],
            result.unit,
            place,
            at_once(decoder, len(ids)),
            means,
            stage,
        )
        for ids, result in zip(texts, results, strict=True)
    ]
    kind: Kind = "mean" if ablation == "mean" else "skip"
    effects = _effects(subjects, kind)
    sizes = np.stack([gated.update_sizes(ids).numpy() for ids in texts])
    credits = np.concatenate([result.credits for result in results])
    drawn: tuple[Curve, ...] = ()
    if curves:
        numbers = {"credit": credits, "effect": effects.effects, "update size": sizes}
        drawn = _curves(subjects, numbers, seed)
    path = _gate_paths(subjects, tolerance, progress) if gates else None
    nulls = _nulls(asked, results, effects, by, strict)
    found = {"credit": credits, "update size": sizes}
    if path is not None:
        found["gate path"] = path.effects
    agreed = _correlations(found, effects, results[0].layers, nulls, seed)
    return Audit(tuple(results), effects, sizes, agreed, drawn, path, seed)


def _check(prompts: Sequence[Prompt], by: str, ablation: str) -> None:
    """Refuse what no audit is of, before the model runs.

    Raises:
        ArgumentError: If there is no text, or a name is unknown.
    """
    if not prompts:
        raise ArgumentError("`prompts` is empty: name at least one text.")
    if by not in ("layer", "sublayer"):
        raise ArgumentError(f"`by` is {by!r}; an audit goes by layer or sublayer.")
    if ablation not in ("skip", "mean"):
        raise ArgumentError(f"`ablation` is {ablation!r}; known are skip, mean.")


@dataclass(eq=False)
class _Stage:
    """Counts runs, and tells of them."""

    progress: Progress
    name: str
    done: int = 0
    total: int | None = None

    def __call__(self, more: int) -> None:
        """So many runs more are done."""
        self.done += more
        self.progress(self.name, self.done, self.total)


def _one_each(
    target: TargetLike | Sequence[TargetLike] | None, n_prompts: int
) -> list[TargetLike | None]:
    """A target for every prompt."""
    if not isinstance(target, list | tuple):
        return [target] * n_prompts  # type: ignore[list-item]
    if len(target) == 1:
        return list(target) * n_prompts
    if len(target) != n_prompts:
        raise ArgumentError(
            f"`target` names {len(target)} targets for {n_prompts} prompts; name one "
            "for all of them, or one for each."
        )
    return list(target)


def _read(
    asked: Prepared,
    targets: list[Target] | None,
    by: str,
    unit: Unit | None,
    strict: bool,
) -> Attribution:
    """The credits of a text's own target, or of others there."""
    return attribute(
        asked.trace,
        asked.targets if targets is None else targets,
        by="sublayer" if by == "sublayer" else "layer",
        unit=unit,
        diagnostics=False,
        strict=strict,
    )


def _text(result: Attribution) -> Int[Tensor, " text"]:
    """The tokens up to the one that predicts."""
    return torch.from_numpy(result.token_ids[: int(result.positions[0])]).long()


def _check_segments(gated: Intervention, result: Attribution) -> None:
    """Refuse where gates are not what credits are given to."""
    columns = [(column.layer, column.part or "block") for column in gated.columns]
    if columns != [(s.layer, s.part) for s in result.segments]:
        raise UnsupportedModelError(
            "The parts of this model's blocks cannot be taken out one by one as they "
            "are credited. Audit whole layers instead."
        )


def _effects(subjects: Sequence[Gated], kind: Kind) -> Effects:
    """What happens without each column, in every text."""
    n_columns = subjects[0].n_columns
    gates = torch.cat([torch.ones(1, n_columns), 1 - torch.eye(n_columns)])
    gates = torch.cat([gates, torch.zeros(1, n_columns)])
    levels = np.stack([subject.levels(gates).numpy() for subject in subjects])
    unknown = np.full(len(subjects), np.nan)
    return Effects(
        kind,
        subjects[0].at,
        levels[:, :1] - levels[:, 1:-1],
        levels[:, 0],
        levels[:, -1],
        unknown,
        unknown,
        (len(gates),) * len(subjects),
    )


def _gate_paths(
    subjects: Sequence[Gated], tolerance: float, progress: Progress
) -> Effects:
    """The gate path of every text; gates close to nothing, whatever the ablation."""
    stage, found = _Stage(progress, "Gate path"), list[GatePath]()
    for one in subjects:
        plain = Gated(
            one.gated, one.ids, one.target, one.unit, "all", one.at_once, None, stage
        )
        found.append(gate_path(plain, tolerance))
    return Effects(
        "gates",
        "all",
        np.stack([path.effects.numpy() for path in found]),
        np.array([path.intact for path in found]),
        np.array([path.removed for path in found]),
        np.array([path.closed for path in found]),
        np.array([path.apart for path in found]),
        tuple(path.runs for path in found),
    )


def _curves(
    subjects: Sequence[Gated],
    numbers: dict[str, Float[np.ndarray, "texts segments"]],
    seed: int,
) -> tuple[Curve, ...]:
    """Deletion and insertion by every order."""
    found = [
        curves(subject, {name: own[text] for name, own in numbers.items()}, seed + text)
        for text, subject in enumerate(subjects)
    ]
    return tuple(
        Curve(kind, order, np.stack([own[kind, order] for own in found]))
        for kind, order in found[0]
    )


def _nulls(
    asked: Sequence[Prepared],
    results: Sequence[Attribution],
    effects: Effects,
    by: str,
    strict: bool,
) -> dict[bool, Float[np.ndarray, " others"]]:
    """Correlations of other texts' targets, read on each text's own states.

    By whether the last layer is among the segments.
    """
    found: dict[bool, list[float]] = {True: [], False: []}
    for text, (item, result) in enumerate(zip(asked, results, strict=True)):
        own = result.targets[0]
        others = {other.targets[0].key: other.targets[0] for other in results}
        chosen = [other for key, other in others.items() if key != own.key][:MOST_NULLS]
        if not chosen:
            continue
        read = _read(item, chosen, by, result.unit, strict)
        for with_last, keep in _choices(result.layers):
            found[with_last] += [
                spearman(credits[keep], effects.effects[text, keep])
                for credits in read.credits
            ]
    return {with_last: np.array(values) for with_last, values in found.items()}


def _choices(layers: tuple[int, ...]) -> list[tuple[bool, np.ndarray]]:
    """All segments, and those below the last layer."""
    numbers = np.array(layers)
    return [(True, numbers > 0), (False, numbers < numbers.max())]


def _correlations(
    methods: dict[str, Float[np.ndarray, "texts segments"]],
    effects: Effects,
    layers: tuple[int, ...],
    nulls: dict[bool, Float[np.ndarray, " others"]],
    seed: int,
) -> tuple[Correlation, ...]:
    """How every method's order agrees with that of the effects."""
    return tuple(
        correlation(
            method,
            numbers[:, keep],
            effects.effects[:, keep],
            with_last=with_last,
            nulls=nulls[with_last] if method == "credit" else None,
            seed=seed,
        )
        for method, numbers in methods.items()
        for with_last, keep in _choices(layers)
    )
