"""What every part is: its name, its writer, whether heads and neurons come apart."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from .dataflow import Flow, ModuleCall
from .parts import GraphFacts, attends, carry, graph_facts
from .recorder import is_matrix
from .regions import Cutting, Region
from .sublayers import BlockPlan, Part
from .trials import Answer, Key, key

LEAST_SHARE = 0.1
"""A part is named after its modules that hold at least so much of its weights."""


def described(
    flows: tuple[Flow, Flow],
    plan: BlockPlan,
    cuttings: Sequence[Cutting],
    answers: Mapping[Key, Answer],
) -> tuple[Part, ...]:
    """The parts of a proved plan, with names and facts.

    Args:
        flows: The run that was learned from, and the one that proves.
        plan: The plan; its parts tell the sites.
        cuttings: Its block in both runs.
        answers: What was tried in the second run, of modules and of blocks.
    """
    if not plan.parts:
        return ()
    first, second = (cutting.regions for cutting in cuttings)
    outside = _mixed_outside(flows[1], plan, second, answers)
    found = []
    for part, kind, *regions in zip(plan.parts, outside, first, second, strict=True):
        facts = [
            graph_facts(flow, region, _carry(flow, plan, region))
            for flow, region in zip(flows, regions, strict=True)
        ]
        found.append(_part(part, kind, flows[1], regions[1], facts, answers))
    return _numbered(found)


def _numbered(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Parts with names that occur once: the second of a kind is "mlp 2"."""
    counts: Counter[str] = Counter()
    found = []
    for part in parts:
        counts[part.name] += 1
        number = counts[part.name]
        name = part.name if number == 1 else f"{part.name} {number}"
        found.append(replace(part, name=name))
    return tuple(found)


def _mixed_outside(
    flow: Flow,
    plan: BlockPlan,
    regions: Sequence[Region],
    answers: Mapping[Key, Answer],
) -> list[str | None]:
    """What the parts are if the block mixes tokens, and none of its modules does."""
    block = answers.get((plan.layer, plan.block, 0))
    own = any(call.name == plan.block for r in regions for call in r.calls)
    if block is None or own or not block.mixes:
        return [None] * len(regions)
    attending = [attends(flow, region.path) for region in regions]
    if any(attending):
        return ["attention" if attend else None for attend in attending]
    return ["mixer" if len(regions) == 1 else "part"] * len(regions)


def _carry(flow: Flow, plan: BlockPlan, region: Region) -> float | None:
    """Factor with which the state before a part enters the one after it."""
    end = flow.states[plan.layer] if plan.kind == "parallel" else region.end
    return None if end is None else carry(flow, region.start, end)


def _part(
    draft: Part,
    outside: str | None,
    flow: Flow,
    region: Region,
    facts: Sequence[GraphFacts],
    answers: Mapping[Key, Answer],
) -> Part:
    """One part, from the graph and from what was tried."""
    first, fact = facts
    told = {call: answers[key(call)] for call in region.calls}
    kinds = [_kind(flow, c, told[c]) for c in _important(region.calls)]
    experts = fact.experts if fact.experts == first.experts else None
    writer, answer = fact.writer.call, Answer()
    if writer is not None:
        answer = next((a for c, a in told.items() if c in writer.chain), answer)
    reason = fact.writer.reason
    if writer is not None and answer.width is None:
        reason = (
            f"its last module with weights, {writer.name}, is no linear map of each "
            "token's vector alone"
        )
    name = outside or "+".join(dict.fromkeys(kinds))
    if name == "mlp" and fact.joined:
        name = "per-layer input"
    part = replace(
        draft,
        name=name,
        modules=region.weighty,
        module=_module(region.calls, writer),
        placement=fact.placement,
        carry=fact.carry if fact.carry == first.carry else None,
        scale=fact.writer.scale,
        writer=None if reason else (writer.name if writer is not None else None),
        writer_reason=reason,
        norm=fact.mixture.norm if reason else fact.writer.norm,
        width=answer.width,
        experts=experts,
        mixture=fact.mixture.name,
        mixture_scale=fact.mixture.scale,
    )
    if outside is not None:
        reason = "it mixes tokens in the block itself, not in a module of its own"
        return replace(part, heads_reason=reason, neurons_reason=reason)
    return _with_neurons(_with_heads(part, told.values()), told.values())


def _with_heads(part: Part, answers: Iterable[Answer]) -> Part:
    """Heads, or why there are none."""
    tried = [a for a in answers if a.heads is not None or a.heads_reason is not None]
    if not tried:
        return replace(part, heads_reason="it is no attention")
    if part.writer is None:
        return replace(part, heads_reason=part.writer_reason)
    return replace(
        part,
        heads=tried[0].heads,
        heads_reason=tried[0].heads_reason,
        gated=tried[0].gated,
    )


def _with_neurons(part: Part, answers: Iterable[Answer]) -> Part:
    """Neurons, or why there are none."""
    reason = part.writer_reason
    if part.experts is not None:
        reason = f"a router chooses some of {part.experts} experts for each token"
    if any(answer.mixes is not False for answer in answers):
        reason = "it mixes tokens"
    elif part.heads is not None:
        reason = "it is attention"
    neurons = part.width if reason is None else None
    return replace(part, neurons=neurons, neurons_reason=reason)


def _kind(flow: Flow, call: ModuleCall, answer: Answer) -> str:
    """What one module is; see `sublayers` for the rule."""
    attending = attends(flow, call.made)
    if answer.mixes is None:
        return "attention" if attending else "part"
    if answer.mixes:
        return "attention" if attending else "mixer"
    return "cross-attention" if attending else "mlp"


def _important(calls: Sequence[ModuleCall]) -> list[ModuleCall]:
    """The calls of modules that hold a good share of a part's weights."""
    sizes = [_size(call) for call in calls]
    least = LEAST_SHARE * sum(sizes)
    return [call for call, size in zip(calls, sizes, strict=True) if size >= least]


def _module(calls: Sequence[ModuleCall], writer: ModuleCall | None) -> str | None:
    """The module that says what a part is: the writer's, else the largest."""
    around = [call for call in calls if writer is not None and call in writer.chain]
    largest = max(around or calls, key=_size, default=None)
    return None if largest is None else largest.name


def _size(call: ModuleCall) -> int:
    """Number of weights in matrices of a module."""
    tensors = (*call.module.parameters(), *call.module.buffers())
    return sum(tensor.numel() for tensor in tensors if is_matrix(tensor))
