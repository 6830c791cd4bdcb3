"""How blocks can be taken apart, in words."""

from collections.abc import Iterator, Sequence

from ..records.findings import BlockFacts, PartFacts

_KINDS = {
    "sequential": "one part after the other",
    "parallel": "parts side by side, on one input",
    "single": "one part",
    "none": "not split",
}
_BASES = {
    "additive": "each adds to the stream",
    "scaled": "each adds to a multiple of the stream",
    "not additive": "the stream is not simply added to",
}
_NORMS = {
    "pre": "norm in front",
    "post": "norm behind",
    "sandwich": "norms in front and behind",
    "none": "no norm",
}


def block_lines(groups: Sequence[BlockFacts]) -> Iterator[tuple[str, str]]:
    """A line for every group of blocks that are built alike, then one for each part."""
    for group in groups:
        words = _KINDS.get(group.kind, group.kind)
        if group.reason is not None:
            words += f": {group.reason}"
        elif group.parts:
            words += f"; {_BASES.get(group.basis, group.basis)}"
        yield layer_ranges(group.layers), words
        for part in group.parts:
            yield f"· {part.name}", "; ".join(_part(part))


def _part(part: PartFacts) -> Iterator[str]:
    """What is known of a part: its norms, its writer, what it consists of."""
    yield _NORMS.get(part.norms, part.norms)
    if part.scale not in (None, 1.0):
        yield f"times {part.scale:g}"
    if part.writer is not None:
        yield f"written by {part.writer}"
    counts = (("experts", part.experts), ("heads", part.heads))
    for what, count in (*counts, ("neurons", part.neurons)):
        if count is not None:
            yield f"{count:,} {what}"
    if part.heads is part.neurons is None:
        yield from _whole(part)


def _whole(part: PartFacts) -> Iterator[str]:
    """Why a part is not taken apart any further."""
    if "attention" in part.name and part.heads_reason is not None:
        yield f"heads cannot be separated: {part.heads_reason}"
    elif part.neurons_reason is not None:
        yield f"neurons cannot be separated: {part.neurons_reason}"
    elif part.writer_reason is not None:
        yield part.writer_reason


def layer_ranges(layers: Sequence[int]) -> str:
    """Layers as runs.

    Example:
        >>> layer_ranges([1, 2, 3, 7]), layer_ranges([4])
        ('layers 1-3, 7', 'layer 4')
    """
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    shown = [f"{r[0]}-{r[-1]}" if len(r) > 1 else f"{r[0]}" for r in runs]
    return f"layer{'s' * (len(layers) > 1)} {', '.join(shown)}"
