"""How blocks can be taken apart, those that are built alike told once."""

from dataclasses import replace

from ..model.sublayers import BlockPlan, Part, Sublayers
from ..records.findings import BlockFacts, PartFacts


def block_facts(sublayers: Sublayers) -> tuple[BlockFacts, ...]:
    """Blocks grouped by how they are built, in the order of their first."""
    groups: dict[BlockFacts, list[int]] = {}
    for plan in sublayers.blocks:
        groups.setdefault(_anywhere(plan), []).append(plan.layer)
    return tuple(
        replace(facts, layers=tuple(layers)) for facts, layers in groups.items()
    )


def _anywhere(plan: BlockPlan) -> BlockFacts:
    """A plan without its place, so that equal blocks have equal facts."""
    return BlockFacts(
        layers=(),
        kind=plan.kind,
        basis=plan.basis,
        parts=tuple(_part(part, plan.block) for part in plan.parts),
        reason=plan.reason,
    )


def _part(part: Part, block: str) -> PartFacts:
    """A part, its modules named from their block on."""
    return PartFacts(
        name=part.name,
        module=_within(part.module, block),
        norms=part.placement,
        carry=part.carry,
        scale=part.scale,
        writer=_within(part.writer, block),
        writer_reason=part.writer_reason,
        heads=part.heads,
        heads_reason=part.heads_reason,
        neurons=part.neurons,
        neurons_reason=part.neurons_reason,
        experts=part.experts,
    )


def _within(name: str | None, block: str) -> str | None:
    """A module's name without that of its block."""
    return None if name is None else name.removeprefix(f"{block}.")
