"""From token ids to traces: one forward pass, and what attribution needs of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..attribution.path import path_layers
from ..errors import ArgumentError, UnsupportedModelError
from ..records import Provenance
from ..stages import stage
from ..trace import Trace
from .capture import Captured, capture_batch
from .inside.opened import Inside
from .labels import Labels
from .picked import try_picking
from .runner import Runner
from .shared import capture_alike
from .text import TextCodec
from .verify import Verified


@dataclass(frozen=True, eq=False)
class Tracer:
    """A verified model, ready to run.

    Attributes:
        runner: The model as a function from token ids to logits.
        verified: Its stream and readout, and how well they were proved.
        codec: Between text and token ids.
        name: What the model is called in messages.
        causal: Whether every position has a next-token probability.
        labels: What the logits stand for; None if they stand for tokens.
        skipped: Padding token at a text's end that the model reads over, if any.
    """

    runner: Runner
    verified: Verified
    codec: TextCodec
    name: str
    causal: bool
    labels: Labels | None = None
    skipped: int | None = None

    def explainable(self, ids: Sequence[int]) -> range:
        """Positions of a text after whose tokens there are logits."""
        end = len(ids)
        if self.labels is not None:
            while end > 1 and ids[end - 1] == self.skipped:
                end -= 1
        every = self.causal and self.labels is None
        return range(1 if every else end, end + 1)

    @stage("forward")
    def traces(
        self,
        texts: Sequence[Sequence[int]],
        positions: Sequence[Sequence[int]],
        layers: Sequence[int] | None,
        provenance: Provenance,
        inside: Inside | None = None,
    ) -> list[Trace]:
        """Traces of some texts, in one forward pass.

        Args:
            texts: Token ids of every text.
            positions: Indices of predicted tokens, per text.
            layers: Layers to keep, None for all.
            provenance: For the record.
            inside: What is wanted of the blocks' insides, if anything.

        Raises:
            ArgumentError: If a position or a layer is out of range.
            UnsupportedModelError: If the model has changed since it was verified, or
                has no next-token probability at a position.
        """
        wanted = [sorted(set(chosen)) for chosen in positions]
        for ids, chosen in zip(texts, wanted, strict=True):
            self._check_positions(chosen, ids)
        kept = path_layers(self.verified.stream.n_layers, layers)
        rows = [torch.tensor(list(ids)) for ids in texts]
        places = [torch.tensor(chosen) - 1 for chosen in wanted]
        stream = self.verified.stream
        try_picking(self.runner, rows, places)
        if inside is None:
            given = (self.runner, stream, rows, places, kept)
            alike = capture_alike(*given, self.verified.noise)
            captured = alike or capture_batch(*given)
            opened: list[dict[str, Any]] = [{} for _ in captured]
        else:
            captured, opened = inside.capture(self.runner, stream, rows, places, kept)
        return [
            replace(self._trace(ids, chosen, kept, taken, provenance), **found)
            for ids, chosen, taken, found in zip(
                texts, wanted, captured, opened, strict=True
            )
        ]

    def one_by_one(
        self,
        texts: Sequence[Sequence[int]],
        positions: Sequence[Sequence[int]],
        layers: Sequence[int] | None,
        provenance: Provenance,
        inside: Inside | None = None,
    ) -> list[Trace]:
        """The same, each text in a pass of its own; the traces say so."""
        note = (
            f"{self.name} gives a text other probabilities among other texts; the "
            "texts were run one by one."
        )
        found = [
            self.traces([ids], [wanted], layers, provenance, inside)[0]
            for ids, wanted in zip(texts, positions, strict=True)
        ]
        return [replace(t, warnings=(*t.warnings, note)) for t in found]

    def _trace(
        self,
        ids: Sequence[int],
        positions: Sequence[int],
        layers: tuple[int, ...],
        taken: Captured,
        provenance: Provenance,
    ) -> Trace:
        """What attribution needs of one text."""
        readout = self.verified.readout
        if taken.states.dtype != readout.dtype:
            raise UnsupportedModelError(
                f"The model was verified in {readout.dtype} and now runs in "
                f"{taken.states.dtype}. Make a new `Decoder` of it."
            )
        return Trace(
            token_ids=torch.tensor(list(ids)),
            token_texts=tuple(self.codec.show(token) for token in ids),
            positions=torch.tensor(positions, device=taken.states.device),
            layers=layers,
            states=taken.states,
            causal_mean=taken.causal_mean,
            text_mean=taken.means,
            logits=taken.logits,
            readout=readout,
            noise=self.verified.noise,
            tolerance=self.verified.tolerance,
            power=self.verified.power,
            modules=self.verified.stream.names,
            decode=(self.labels or self.codec).show,
            provenance=provenance,
            warnings=self._warnings(ids),
            measure=self.runner.measure,
            labels=None if self.labels is None else self.labels.names,
        )

    def _check_positions(self, positions: Sequence[int], ids: Sequence[int]) -> None:
        """Refuse positions that no state of this text predicts."""
        length = len(ids)
        if not positions:
            raise ArgumentError("`positions` is empty: there is nothing to explain.")
        if self.labels is not None and list(positions) != [*self.explainable(ids)]:
            raise ArgumentError(
                f"`positions` is {positions}, but {self.name} answers to whole texts: "
                f"this one can be explained at {self.explainable(ids)[0]} alone. For "
                "an earlier place, pass the text up to there."
            )
        if positions[0] < 1 or positions[-1] > length:
            bad = positions[0] if positions[0] < 1 else positions[-1]
            raise ArgumentError(
                f"`positions` names {bad}; a text of {length} tokens has predictions "
                f"for 1 (after its first token) to {length} (what comes next)."
            )
        if not self.causal and list(positions) != [length]:
            raise UnsupportedModelError(
                f"{self.name} is declared not to be causal: of this text only position "
                f"{length}, what comes next, has a next-token probability."
            )

    def _warnings(self, ids: Sequence[int]) -> tuple[str, ...]:
        """What a reader must know about this text and this model."""
        found = list(self.verified.notes)
        if self.codec.doubled_bos(ids):
            found.append(
                "The text starts with the beginning-of-text token twice; the tokenizer "
                "adds one itself (`special_tokens=False` leaves it out)."
            )
        if self.explainable(ids)[-1] < len(ids):
            found.append(
                "The text ends with padding, which the model reads over: what is "
                "explained is its answer to the text before that."
            )
        return tuple(found)
