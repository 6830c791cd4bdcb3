"""The interaction of a block's parts: what they change only together."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from ..errors import ArgumentError
from ..inside.parted import MOST_PARALLEL, Parted
from ..readout import MEMORY_BUDGET
from ..readout.lens import AbstractLens
from ..records import Subject, Unit
from ..records.interaction import Interaction
from ..trace import Trace
from .attribute import attribute
from .baseline import BaselineLike
from .estimator import Observed
from .path import Block, make_path
from .reading import PathReading, read_paths
from .rows import Targets, resolve_rows


def interaction(
    trace: Trace,
    targets: Targets = None,
    *,
    layers: Sequence[int] | None = None,
    baseline: BaselineLike = "embedding",
    lens: AbstractLens | None = None,
    unit: Unit | None = None,
    precision: torch.dtype | None = None,
    strict: bool = True,
    memory_budget: int = MEMORY_BUDGET,
) -> Interaction:
    """What the parts of every block change alone, and what only together.

    Every block is read with every selection of its parts added to the state that enters
    it. Blocks of more than four parts are left out.

    Args:
        trace: States, made with `Decoder.trace(…, by="sublayer")`.
        targets: As in `attribute`; so are the other arguments.
        layers: Layers the path stops at.
        baseline: Where it starts.
        lens: What states are read through.
        unit: Unit of the levels.
        precision: Dtype of the readout.
        strict: Refuse what cannot be verified.
        memory_budget: Bytes that reading may hold.

    Raises:
        IGLensError: As `attribute` does, or if the trace holds no parts.
    """
    known = attribute(
        trace,
        targets,
        layers=layers,
        by="sublayer",
        baseline=baseline,
        lens=lens,
        unit=unit,
        diagnostics=False,
        tolerance=0.0,  # its levels are compared with others
        precision=precision,
        strict=strict,
        memory_budget=memory_budget,
    )
    few = {
        layer: parted
        for layer, parted in trace.inside.items()
        if len(parted.names) <= MOST_PARALLEL
    }
    if precision is not None:
        trace = trace.with_precision(precision)
    beside = replace(
        trace, inside={layer: _beside(trace, layer, few[layer]) for layer in few}
    )
    path = make_path(beside, layers, baseline, lens, parted=True)
    reading = read_paths(
        path,
        resolve_rows(trace, targets),
        trace.readout,
        known.unit,
        Observed(),
        diagnostics=False,
        memory_budget=memory_budget,
    )
    alone = [_alone(block, reading) for block in path.blocks if block.parts is not None]
    places = [
        at
        for at, segment in enumerate(known.segments)
        if segment.is_part and segment.layer in few
    ]
    if not alone:
        raise ArgumentError("No block on this path has parts that could interact.")
    subject = Subject.of(known)
    return Interaction(
        replace(subject, segments=tuple(known.segments[at] for at in places)),
        np.concatenate(alone, axis=1),
        known.writes[:, places],
        known.unit,
    )


def _beside(trace: Trace, layer: int, parted: Parted) -> Parted:
    """The same parts, taken to stand side by side: updates in place of states."""
    if parted.kind == "parallel":
        return parted
    start = trace.states[trace.layers.index(layer - 1)]
    updates = torch.diff(torch.cat([start[None], parted.between]), dim=0)
    return replace(parted, kind="parallel", between=updates)


def _alone(block: Block, reading: PathReading) -> Float[np.ndarray, "rows parts"]:
    """What every part changes when it alone is added."""
    assert block.parts is not None  # only of these
    start = reading.starts[:, block.start]
    picks = [block.start + 2**part for part in range(len(block.parts.names))]
    with np.errstate(invalid="ignore"):
        return reading.levels[:, picks] - start[:, None]
