"""What a trace holds of the insides of blocks, taken in the pass of its states."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from jaxtyping import Int
from torch import Tensor

from ...attribution.path import Level
from ...inside import Mixture, Writing
from ...inside.parted import Parted
from ..capture import Captured
from ..runner import Runner
from ..stream import Stream
from .between import capture_parts
from .sublayers import BlockPlan, Sublayers
from .writings import Writings, writing_hooks


@dataclass(frozen=True, eq=False)
class Inside:
    """What is wanted of the insides of blocks.

    Attributes:
        sublayers: The parts of all blocks.
        by: How far down: below "sublayer", what writes inside the parts is kept too.
    """

    sublayers: Sublayers
    by: Level

    def capture(
        self,
        runner: Runner,
        stream: Stream,
        texts: Sequence[Int[Tensor, " _"]],
        places: Sequence[Int[Tensor, " _"]],
        layers: Sequence[int],
    ) -> tuple[list[Captured], list[dict[str, Any]]]:
        """States of some texts, and what a trace holds besides, by field.

        Args as in `capture_parts`.
        """
        writings = None
        with ExitStack() as stack:
            if self.by != "sublayer":
                inner = [layer for layer in layers[1:] if layer - 1 in layers]
                hooks = writing_hooks(
                    runner,
                    stream,
                    self.sublayers,
                    places,
                    inner,
                    sources=self.by == "source",
                )
                writings = stack.enter_context(hooks)
            found = capture_parts(runner, stream, self.sublayers, texts, places, layers)
        fields = [
            self._fields(index, taken.captured, taken.between, layers, writings)
            for index, taken in enumerate(found)
        ]
        return [taken.captured for taken in found], fields

    def _fields(
        self,
        text: int,
        captured: Captured,
        between: dict[int, Tensor],
        layers: Sequence[int],
        writings: Writings | None,
    ) -> dict[str, Any]:
        """What lies inside the blocks of one text, and why that is not known."""
        states = dict(zip(layers, captured.states, strict=True))
        inside, whole = {}, {}
        for plan in self.sublayers.blocks:
            if (held := between.get(plan.layer)) is None:
                whole[plan.layer] = _why_whole(plan)
                continue
            written: tuple[Writing | Mixture | str, ...] = ()
            if writings is not None:
                ends = states[plan.layer - 1], states[plan.layer]
                written = writings.of(text, plan.layer, *ends, held)
            inside[plan.layer] = Parted(
                "parallel" if plan.kind == "parallel" else "sequential",
                tuple(part.name for part in plan.parts),
                tuple(part.module for part in plan.parts),
                held,
                written,
            )
        return {"inside": inside, "whole": whole}


def _why_whole(plan: BlockPlan) -> str:
    """Why a block is not split."""
    if plan.reason is not None:
        return plan.reason
    if plan.is_split:
        return "the path does not stop at both its ends"
    names = ", ".join(part.name for part in plan.parts) or "no module"
    return f"there is nothing to split: all its weights are those of one part ({names})"
