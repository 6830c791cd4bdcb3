"""Texts to audit: run once, read, and made functions of gates."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from ..attribution.attribute import attribute
from ..attribution.path import Level
from ..errors import ArgumentError
from ..explaining import Prepared, prepare
from ..explaining.plan import TargetLike
from ..gating import Gated, gated_results
from ..gating.stage import Stage
from ..model.decoder import Decoder
from ..model.intervene import At, Intervention
from ..model.text import Prompt
from ..records import Attribution, Target, Unit
from ..records.effects import Kind

Targets = TargetLike | Sequence[TargetLike] | None
"""One for all texts, one for each, or None for what the model goes on with."""


@dataclass(frozen=True)
class Manner:
    """How texts are audited.

    Attributes:
        by: How far down segments go.
        unit: Unit of credits and effects; None for the model's usual one.
        at: Where segments are taken out.
        kind: What stands in for them.
        chat: Put prompts through the chat template.
        special_tokens: Let the tokenizer add what it adds to a text.
        strict: Refuse what cannot be verified instead of flagging it.
    """

    by: Level
    unit: Unit | None
    at: At
    kind: Kind
    chat: bool = False
    special_tokens: bool = True
    strict: bool = True


@dataclass(frozen=True, eq=False)
class Texts:
    """Several texts, one token explained in each.

    Attributes:
        decoder: The model.
        gated: The same, with gates.
        manner: How they are audited.
        asked: States and targets.
        results: What the readout says, a row for each text.
        subjects: The targets' levels as functions of gates.
        stage: Counts their runs.
    """

    decoder: Decoder
    gated: Intervention
    manner: Manner
    asked: tuple[Prepared, ...]
    results: tuple[Attribution, ...]
    subjects: tuple[Gated, ...]
    stage: Stage

    @classmethod
    def of(
        cls,
        decoder: Decoder,
        prompts: Sequence[Prompt],
        target: Targets,
        manner: Manner,
        stage: Stage,
    ) -> "Texts":
        """Run and read every text.

        Raises:
            UnsupportedModelError: If skipping a block of this model has no plain
                meaning.
            IGLensError: As `explain` does.
        """
        gated = Intervention.of(decoder, parts=manner.by == "sublayer")
        asked = tuple(
            prepare(
                decoder,
                prompt,
                target=own,
                by=manner.by,
                max_new_tokens=1,
                chat=manner.chat,
                special_tokens=manner.special_tokens,
            )
            for prompt, own in zip(
                prompts, _one_each(target, len(prompts)), strict=True
            )
        )
        results = tuple(_read(item, None, manner) for item in asked)
        plain = gated_results(decoder, gated, results)
        gated.check_parts(plain[0].ids, decoder.readout.vocab_size)
        means = None
        if manner.kind == "mean":
            means = gated.mean_updates([subject.ids for subject in plain])
        subjects = gated_results(
            decoder, gated, results, at=manner.at, means=means, done=stage
        )
        return cls(decoder, gated, manner, asked, results, tuple(subjects), stage)

    @property
    def n_columns(self) -> int:
        """Number of segments."""
        return self.subjects[0].n_columns

    def plainly(self, stage: Stage) -> list[Gated]:
        """The same with gates that act at all tokens and close to nothing."""
        return gated_results(self.decoder, self.gated, self.results, done=stage)

    def update_sizes(self) -> Float[np.ndarray, "texts segments"]:
        """Length of what each segment adds to the predicting state."""
        sizes = [self.gated.update_sizes(subject.ids) for subject in self.subjects]
        return torch.stack(sizes).numpy()

    def credits_of(
        self, text: int, targets: list[Target]
    ) -> Float[np.ndarray, "others segments"]:
        """Credits of other targets, read on the same states."""
        return _read(self.asked[text], targets, self.manner).credits


def _read(asked: Prepared, targets: list[Target] | None, manner: Manner) -> Attribution:
    """The credits of a text's own target, or of others there."""
    return attribute(
        asked.trace,
        asked.targets if targets is None else targets,
        by=manner.by,
        unit=manner.unit,
        diagnostics=False,
        strict=manner.strict,
    )


def _one_each(target: Targets, n_prompts: int) -> list[TargetLike | None]:
    """A target for every prompt.

    Raises:
        ArgumentError: If there are neither one nor as many.
    """
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
