"""A step of the path between two neighbouring states."""

from dataclasses import dataclass

WHOLE = frozenset({"block", "blocks", "embedding"})
"""What a segment is that no part of a block is."""


@dataclass(frozen=True)
class Segment:
    """The piece of the path that one credit belongs to.

    Attributes:
        layer: Layer it ends at; 0 is the embedding's own segment, which exists only
            when the baseline is another state.
        after: Layer it starts at; None when it starts at a baseline off the path.
        part: "block", "blocks" (several merged), "embedding"; or the part of the block
            that it is, as "attention" or "mlp".
        label: What to show.
        module: Name of the block it ends with, or of the part that it is, as the model
            calls it, if known.
        block: Name of the block that a part lies in.
    """

    layer: int
    after: int | None
    part: str
    label: str
    module: str | None = None
    block: str | None = None

    @property
    def is_part(self) -> bool:
        """Whether it lies inside a block."""
        return self.part not in WHOLE

    @property
    def place(self) -> tuple[int | None, int, str]:
        """Where it lies on the path, whatever a model calls its blocks."""
        return self.after, self.layer, self.part


def part_segment(layer: int, part: str, module: str | None, block: str) -> Segment:
    """The segment that one part of a block is.

    Args:
        layer: Number of the block, from 1.
        part: What the part is.
        module: The module that says so.
        block: Name of the block.
    """
    label = f"layer {layer} {part}"
    label += f" ({module})" if module else ""
    return Segment(layer, layer - 1, part, label, module, block)


def block_segment(after: int | None, layer: int, modules: tuple[str, ...]) -> Segment:
    """The segment that ends at `layer`, named after its last block.

    Args:
        after: Layer the segment starts at, None for a baseline off the path.
        layer: Layer it ends at, 0 for the embedding's own.
        modules: Names of the blocks, in order, block 1 first.
    """
    if layer == 0:
        return Segment(0, after, "embedding", "embedding")
    module = modules[layer - 1] if layer <= len(modules) else None
    single = after == layer - 1
    if after is None:
        span = f"baseline to layer {layer}"
    else:
        span = f"layer {layer}" if single else f"layers {after + 1}-{layer}"
    label = f"{span} ({module})" if module else span
    return Segment(layer, after, "block" if single else "blocks", label, module)
