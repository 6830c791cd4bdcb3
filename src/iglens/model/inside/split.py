"""Finding the parts of every block on one text, and proving them on another."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ...errors import UnsupportedModelError
from ...stages import stage
from ..discover import arbitrary_tokens
from ..runner import Runner
from ..stream import Stream
from .between import site_hooks
from .dataflow import Flow
from .naming import described
from .parts import carry
from .questions import block_questions, questions
from .recorder import record_flow
from .regions import Cutting, cut_block
from .sublayers import BlockPlan, Part, Site, Sublayers
from .trials import try_modules

LEARNED, PROVED = (2, 8), (1, 21)
"""Texts and tokens of the run that is learned from, and of the one that proves."""


@stage("verify")
def find_sublayers(runner: Runner, stream: Stream) -> Sublayers:
    """The parts of every block of a verified stream; see `sublayers`.

    Runs the model four or five times on short texts. Where nothing is found or proved
    the plans say why; that is no error.
    """
    if len(stream.enter) > 1:
        return _unsplit(stream, f"its stream is {len(stream.enter)} tensors")
    ids = arbitrary_tokens(runner.model, LEARNED)
    other = arbitrary_tokens(runner.model, PROVED).flip(1)
    try:
        learned = record_flow(runner, stream, ids)
        proved = record_flow(runner, stream, other, values=True)
    except UnsupportedModelError as error:
        return _unsplit(stream, f"its operations cannot be followed: {error}")
    layers = range(1, stream.n_layers + 1)
    found = [cut_block(learned, stream, layer) for layer in layers]
    again = [cut_block(proved, stream, layer) for layer in layers]
    plans = [
        _plan(layer, name, cutting)
        for layer, name, cutting in zip(layers, stream.names, found, strict=True)
    ]
    seen = _seen(runner, stream, other, plans)
    answers = try_modules(runner, stream, other, questions(proved, again))
    if more := block_questions(proved, stream, again, answers):
        answers = try_modules(runner, stream, other, more) | answers
    blocks = []
    for plan, *pair in zip(plans, found, again, strict=True):
        held = _proved(plan, proved, pair[1], seen)
        parts = described((learned, proved), held, pair, answers)
        blocks.append(replace(held, parts=parts))
    return Sublayers(tuple(blocks))


def _unsplit(stream: Stream, reason: str) -> Sublayers:
    """No block split, for one reason."""
    return Sublayers(
        tuple(
            BlockPlan(layer, name, "none", reason=reason)
            for layer, name in enumerate(stream.names, 1)
        )
    )


def _plan(layer: int, name: str, cutting: Cutting) -> BlockPlan:
    """What the hooks need of a plan: which parts there are, and where they end."""
    last = len(cutting.regions) - 1
    parts = tuple(
        Part(
            name=str(index),
            site=None if index == last else region.site,
            site_scale=1.0 if region.scale is None else region.scale,
        )
        for index, region in enumerate(cutting.regions)
    )
    return BlockPlan(layer, name, cutting.kind, parts, cutting.reason, cutting.note)


def _seen(
    runner: Runner, stream: Stream, ids: Tensor, plans: Sequence[BlockPlan]
) -> dict[tuple[int, Site], Tensor]:
    """What hooks alone find at the sites of some plans."""
    seen: dict[tuple[int, Site], Tensor] = {}

    def take(layer: int, site: Site, tensor: Tensor) -> None:
        seen[layer, site] = tensor.clone()

    with site_hooks(runner.model, stream, plans, take):
        runner(ids)
    return seen


def _proved(
    plan: BlockPlan,
    flow: Flow,
    cutting: Cutting,
    seen: dict[tuple[int, Site], Tensor],
) -> BlockPlan:
    """The plan, if hooks found on another text what lies on every path there."""
    sites = tuple(region.site for region in cutting.regions[:-1])
    if (plan.kind, plan.sites) != (cutting.kind, sites):
        return _refused(plan, "another text took it apart in another way")
    for site, region in zip(plan.sites, cutting.regions, strict=False):
        value, found = flow.nodes[region.end].value, seen.get((plan.layer, site))
        if (
            value is None
            or found is None
            or not torch.equal(found, value.reshape(found.shape))
        ):
            return _refused(
                plan, f"a hook at {site.module} finds another state on another text"
            )
    if plan.kind == "parallel" and not _sums_up(flow, cutting, plan.layer):
        return _refused(plan, "its output is not the sum of what its modules give")
    return plan


def _refused(plan: BlockPlan, reason: str) -> BlockPlan:
    """A block that is not split after all."""
    return BlockPlan(plan.layer, plan.block, "none", reason=reason)


def _sums_up(flow: Flow, cutting: Cutting, layer: int) -> bool:
    """Whether input and scaled vectors add up to the output, within rounding."""
    before, after = flow.states[layer - 1], flow.states[layer]
    if before is None or after is None:
        return False
    start, end = flow.nodes[before].value, flow.nodes[after].value
    if start is None or end is None:
        return False
    total = start.double() * (carry(flow, before, after) or 0.0)
    for region in cutting.regions:
        value = flow.nodes[region.end].value
        if value is None:
            return False
        total += value.reshape(end.shape).double() * (region.scale or 0.0)
    gap = float((total - end.double()).abs().max())
    return gap <= 16 * torch.finfo(end.dtype).eps * float(end.abs().max())
