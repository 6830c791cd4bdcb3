"""Cutting the graph of a block into regions, one for each of its parts."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from torch import nn

from ..stream import Stream
from .cuts import addends, between, cuts, descendants, stretches
from .dataflow import Flow, ModuleCall, Node
from .sublayers import BlockKind, Site

_VIEWS = ("_unsafe_view", "alias", "detach", "reshape", "squeeze", "unsqueeze", "view")
"""Operators that give the same numbers in the same order, in another shape."""


@dataclass(frozen=True, eq=False)
class Region:
    """What one part of a block does, in the graph of one run.

    Attributes:
        start: The state before it.
        end: The state after it; of a parallel part, the vector that it gives.
        path: Nodes on the paths from the one to the other.
        calls: The module calls with weights on these, outermost, in order.
        site: Where a hook finds the end; None for that of the last part.
        scale: Parallel parts: the factor with which the vector enters the sum.
    """

    start: int
    end: int
    path: tuple[int, ...]
    calls: tuple[ModuleCall, ...]
    site: Site | None
    scale: float | None = None

    @property
    def weighty(self) -> tuple[str, ...]:
        """Names of the modules with weights, each once."""
        return tuple(dict.fromkeys(call.name for call in self.calls))


@dataclass(frozen=True, eq=False)
class Cutting:
    """The regions of one block.

    Attributes:
        kind: As in `BlockPlan`.
        regions: One for each part.
        reason: Why there is none.
    """

    kind: BlockKind
    regions: tuple[Region, ...] = ()
    reason: str | None = None

    @property
    def note(self) -> str | None:
        """What runs past the states between the parts, in words."""
        late = [
            call.name
            for region in self.regions
            for call in region.calls
            if call.first < region.start
        ]
        if not late:
            return None
        return (
            f"{late[0]} reads an earlier state and is added at the end, as part of the "
            "last update"
        )


def cut_block(flow: Flow, stream: Stream, layer: int) -> Cutting:
    """The regions of the block that leads from `h_{layer-1}` to `h_layer`."""
    start, end = flow.states[layer - 1], flow.states[layer]
    path = [] if start is None or end is None else between(flow.nodes, start, end)
    if not path or start is None or end is None:
        return Cutting("none", reason="its output does not stem from its input")
    regions = _sequence(flow, stream, layer, path)
    if not regions:
        return Cutting("none", reason="no matrix of weights acts in it")
    if len(regions) > 1:
        return Cutting("sequential", regions)
    whole = regions[0]
    if len(whole.calls) == 1:
        return Cutting("single", regions)
    if parts := _addends(flow, whole):
        return Cutting("parallel", parts)
    names = ", ".join(name.rpartition(".")[2] for name in whole.weighty)
    return Cutting(
        "none",
        reason=f"no state of the stream's shape lies between {names}, and the block's "
        "output is no sum of what they give",
    )


def _sequence(
    flow: Flow, stream: Stream, layer: int, path: Sequence[int]
) -> tuple[Region, ...]:
    """Regions between the states that every path crosses and a hook can find."""
    found: list[Region] = []
    start = path[0]
    for end in _ends(flow, layer, path):
        inner = tuple(between(flow.nodes, start, end))
        calls = outermost(flow.nodes, inner, path, stream.blocks)
        site = None if end == path[-1] else _site(flow, layer, end)
        region = Region(start, end, inner, calls, site)
        found += _without_late_addend(flow, stream, layer, region) or [region]
        start = end
    return tuple(found)


def _ends(flow: Flow, layer: int, path: Sequence[int]) -> list[int]:
    """The last state before each stretch of weights, and the end of the path.

    Two stretches between which no hook finds a state are one part.
    """
    crossed = cuts(flow.nodes, path)
    weights = stretches(flow.nodes, path)
    found = []
    for (_, after), (before, _) in pairwise(weights):
        states = [
            node
            for node in crossed
            if after <= node <= before and _site(flow, layer, node) is not None
        ]
        found += states[-1:]
    return [*found, path[-1]] if weights else []


def _without_late_addend(
    flow: Flow, stream: Stream, layer: int, region: Region
) -> list[Region]:
    """A region whose parts follow each other but for one that is added at the end.

    A module may read an early state and enter only the last sum (the shortcut of a
    mixture of experts). What runs meanwhile has states between, and the late addend
    belongs to the update of the last part.
    """
    given = {node: call for call in region.calls for node in call.returned.values()}
    factors = addends(flow.nodes, region.end, region.start, given)
    for late in sorted(factors.keys() & given.keys()) if len(region.calls) > 2 else ():
        path = between(flow.nodes, region.start, region.end, without=late)
        ends = _ends(flow, layer, path) if path else []
        if len(ends) < 2:
            continue
        starts = [region.start, *ends]
        found = []
        for start, end in zip(starts, ends, strict=False):
            inner = tuple(between(flow.nodes, start, end, without=late))
            calls = outermost(flow.nodes, inner, path, stream.blocks)
            site = region.site if end == region.end else _site(flow, layer, end)
            found.append(Region(start, end, inner, calls, site))
        last = found[-1]
        return [*found[:-1], replace(last, calls=(*last.calls, given[late]))]
    return []


def _site(flow: Flow, layer: int, node: int) -> Site | None:
    """Where a hook finds a state: inputs first, then the outermost module."""
    if not _is_state(flow.nodes, node):
        return None
    sites = flow.sites.get((layer, node), [])
    return min(
        sites, key=lambda s: (s.side != "input", s.module.count(".")), default=None
    )


def _is_state(nodes: Sequence[Node], node: int) -> bool:
    """Whether a value has the stream's shape and dtype, or is a view of one that has.

    Some models put texts and tokens on one axis before they norm a state.
    """
    while nodes[node].op in _VIEWS and nodes[node].shape != nodes[0].shape:
        node = nodes[node].parents[0]
    found = nodes[node]
    return (found.shape, found.dtype) == (nodes[0].shape, nodes[0].dtype)


def outermost(
    nodes: Sequence[Node],
    path: Collection[int],
    whole: Collection[int],
    blocks: Collection[nn.Module],
) -> tuple[ModuleCall, ...]:
    """The largest module calls with weights that make nothing beyond a path.

    Args:
        nodes: The graph.
        path: Nodes of one region.
        whole: Nodes of its block.
        blocks: Modules that are no parts, but hold them.
    """
    start, end = min(path), max(path)
    later = [node for node in whole if node > end]
    found: dict[int, ModuleCall] = {}
    for node in sorted(path):
        chosen = None
        call = nodes[node].call
        for outer in call.chain if nodes[node].weighty and call is not None else ():
            if outer.module in blocks:
                chosen = chosen or outer
                break
            beyond = any(n in outer.made for n in later)
            if start < outer.first and outer.last >= 0 and not beyond:
                chosen = outer
        if chosen is not None:
            found[id(chosen)] = chosen
    return tuple(sorted(found.values(), key=lambda call: call.first))


def _addends(flow: Flow, whole: Region) -> tuple[Region, ...]:
    """Parallel parts: module outputs whose sum, with the input, is the output."""
    given = {
        node: (call, place)
        for call in whole.calls
        for place, node in call.returned.items()
        if node in whole.path
    }
    factors = addends(flow.nodes, whole.end, whole.start, given)
    parts = [
        (node, *given[node], factor)
        for node, factor in factors.items()
        if node in given and factor is not None and _is_state(flow.nodes, node)
    ]
    if len(parts) < 2 or factors.get(whole.start) is None:
        return ()
    for node, *_ in parts:
        after = descendants(flow.nodes, whole.path, [node])
        if any(other in after for other, *_ in parts if other != node):
            return ()
    parts.sort(key=lambda part: part[1].first)
    found = []
    for node, call, place, factor in parts:
        inner = tuple(between(flow.nodes, whole.start, node))
        site = Site(call.name, "output", place, call.number)
        calls = tuple(c for c in whole.calls if _ran_for(flow, c, inner))
        found.append(Region(whole.start, node, inner, calls, site, factor))
    return tuple(found)


def _ran_for(flow: Flow, call: ModuleCall, path: Collection[int]) -> bool:
    """Whether a call made one of these nodes with weights."""
    return any(node in call.made and flow.nodes[node].weighty for node in path)
