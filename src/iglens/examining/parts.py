"""How blocks can be taken apart, those that are built alike told once."""

from dataclasses import replace

from ..model.inside.sublayers import BlockPlan, Part, Sublayers
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
        reason=_within(plan.reason, plan.block),
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
        writer_reason=_within(part.writer_reason, block),
        heads=part.heads,
        heads_reason=_within(part.heads_reason, block),
        neurons=part.neurons,
        neurons_reason=_within(part.neurons_reason, block),
        experts=part.experts,
    )


def _within(text: str | None, block: str) -> str | None:
    """A module's name, or a sentence with such names, without that of the block."""
    return None if text is None else text.replace(f"{block}.", "")
