"""What the graph tells of a part: its norms, its factors, and the module that writes.

Operators are known by their names here, modules and classes are not.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from .cuts import addends, descendants
from .dataflow import Flow, ModuleCall, Node
from .regions import Region
from .sublayers import Placement

_NORMING = {
    "_fused_rms_norm",
    "layer_norm",
    "linalg_vector_norm",
    "native_layer_norm",
    "rms_norm",
    "rsqrt",
}
_SOFTMAX = {"_safe_softmax", "_softmax", "softmax"}
_PRODUCT = {"baddbmm", "bmm", "matmul", "mm"}

Norms = dict[int, tuple[int, str | None]]
"""What norms give: what they are given, and the name of the module around them."""


@dataclass(frozen=True, eq=False)
class Writer:
    """The module whose output becomes a part's update, or why there is none.

    Attributes:
        call: Its call.
        scale: Factor with which its output enters, None if that is no number.
        norm: Name of the one module that norms its output; None if there is none.
        reason: Why there is none.
    """

    call: ModuleCall | None = None
    scale: float | None = None
    norm: str | None = None
    reason: str | None = None

    @property
    def name(self) -> str | None:
        """The module's name."""
        return None if self.call is None else self.call.name


@dataclass(frozen=True, eq=False)
class GraphFacts:
    """What the graph tells of one part.

    Attributes:
        carry: As in `Part`.
        placement: As in `Part`.
        writer: The module that writes; its linearity is still to be proved.
        experts: Largest number of values of which an operator took the largest.
        joined: Whether a tensor per token enters that does not stem from the stream.
        mixture: The module that adds up what experts give, and how that enters.
    """

    carry: float | None
    placement: Placement
    writer: Writer
    experts: int | None
    joined: bool
    mixture: Writer


def graph_facts(flow: Flow, region: Region, carry: float | None) -> GraphFacts:
    """What the graph tells of the part that a region is."""
    nodes = flow.nodes
    inner = region.path[1:]
    weights = [node for node in inner if nodes[node].weighty]
    feeding = _feeding(nodes, inner, weights)
    last = [node for node in weights if node not in feeding]
    behind = descendants(nodes, inner, weights)
    norms = [node for node in inner if nodes[node].op in _NORMING]
    pre = any(node in feeding and node not in behind for node in norms)
    written = descendants(nodes, inner, last)
    posts = [node for node in norms if node in written]
    placement: Placement = "pre" if pre else "none"
    if posts:
        placement = "sandwich" if pre else "post"
    made = [node for call in region.calls for node in call.made]
    chosen = [n for i in made if nodes[i].op == "topk" for n in nodes[i].parents]
    experts = max((nodes[node].shape[-1] for node in chosen), default=None)
    ends = [_norm_ends(flow, region, node) for node in posts]
    around = {gives: (given, name) for given, gives, name in ends}
    return GraphFacts(
        carry,
        placement,
        _writer(flow, region, last, behind, around),
        experts,
        any(nodes[node].joined for node in region.path),
        Writer() if experts is None else _mixture(flow, region, around),
    )


def _mixture(flow: Flow, region: Region, norms: Norms) -> Writer:
    """The module that takes a vector and weights of its experts for each token."""
    nodes, made = flow.nodes, set(region.calls)
    inside = [c for c in flow.calls if not made.isdisjoint(c.chain)]
    for call in inside:
        given = {nodes[node].shape for node in call.given.values()}
        returned = {*call.returned.values()}
        shapes = {nodes[node].shape for node in returned}
        if len(given) != 2 or len(returned) != 1 or not shapes < given:
            continue
        (weights,) = given - shapes
        if [*weights[:-1]] != [*shapes.pop()[:-1]]:
            continue
        (out,) = returned
        found = _entering(flow, region, call, out, norms)
        if found is not None:
            return found
    return Writer()


def _entering(
    flow: Flow, region: Region, call: ModuleCall, out: int, norms: Norms
) -> Writer | None:
    """How a module's output enters the update, if it does as one addend of others."""
    factor: float | None = 1.0
    node, crossed = region.end, list[str | None]()
    while True:
        every = addends(flow.nodes, node, region.start, {out, *norms})
        (leaf, times), *others = [
            item for item in every.items() if item[0] == out or item[0] in norms
        ] or [(-1, None)]
        if others or leaf < 0:
            return None
        factor = None if factor is None or times is None else factor * times
        if leaf == out:
            norm = crossed[0] if len(crossed) == 1 else None
            known = len(crossed) == 1 or not crossed
            return Writer(call, factor, norm) if known else None
        node, name = norms[leaf]
        crossed.append(name)


def attends(flow: Flow, span: Sequence[int]) -> bool:
    """Whether among some values a softmax weights a product of two others."""
    softmax = [node for node in span if flow.nodes[node].op in _SOFTMAX]
    weighted = descendants(flow.nodes, span, softmax)
    return any(
        "attention" in flow.nodes[index].op
        or (index in weighted and _is_product(flow.nodes[index]))
        for index in span
    )


def _is_product(node: Node) -> bool:
    """Whether two values that stem from the stream are multiplied as matrices."""
    return node.op in _PRODUCT and not node.weighty and len(node.parents) > 1


def carry(flow: Flow, start: int, end: int) -> float | None:
    """Factor with which one state enters another; None if that is no number."""
    return addends(flow.nodes, end, start, ()).get(start)


def _feeding(
    nodes: list[Node], path: Collection[int], weights: Collection[int]
) -> set[int]:
    """The nodes from which others come in which weights take part."""
    found: set[int] = set()
    members = set(weights)
    for node in sorted(path, reverse=True):
        if node in members or node in found:
            found.update(nodes[node].parents)
    return found


def _writer(
    flow: Flow,
    region: Region,
    last: Collection[int],
    behind: Collection[int],
    norms: Norms,
) -> Writer:
    """The smallest module call around the last weights, and how its output enters."""
    nodes = flow.nodes
    chains = [list(_inside(nodes[node], region)) for node in last]
    common = [c for c in chains[0] if all(c in chain for chain in chains[1:])]
    if not common:
        names = dict.fromkeys(chain[0].name for chain in chains if chain)
        short = ", ".join(name.rpartition(".")[2] for name in names) or "no module"
        return Writer(reason=f"its update is the sum of what several give: {short}")
    call = common[0]
    out = {node for node in call.returned.values() if node in region.path}
    if len(out) != 1 or len(set(call.given.values())) != 1:
        return Writer(
            reason=f"its last module with weights, {call.name}, takes or gives "
            "several tensors"
        )
    return _followed(flow, region, call, out.pop(), norms, behind)


def _inside(node: Node, region: Region) -> Iterator[ModuleCall]:
    """The calls that a node was made in, up to the outermost of its part."""
    chain = [] if node.call is None else list(node.call.chain)
    limit = max((i for i, c in enumerate(chain) if c in region.calls), default=-1)
    yield from chain[: limit + 1]


def _norm_ends(flow: Flow, region: Region, node: int) -> tuple[int, int, str | None]:
    """What the module around a norm is given, what it gives, and its name."""
    call = flow.nodes[node].call
    found: tuple[int, int, str | None] = (node, node, None)
    for outer in call.chain if call is not None else ():
        span = outer.made
        if any(flow.nodes[n].weighty for n in region.path if n in span):
            break
        given, gives = set(outer.given.values()), set(outer.returned.values())
        if len(given) == len(gives) == 1:
            found = (given.pop(), gives.pop(), outer.name)
    return found


def _in(calls: Collection[ModuleCall], node: int) -> bool:
    """Whether a value was made in one of these calls."""
    return any(node in call.made for call in calls)


def _followed(
    flow: Flow,
    region: Region,
    call: ModuleCall,
    out: int,
    norms: Norms,
    behind: Collection[int],
) -> Writer:
    """Follow the update back from the end, through norms and factors, to the writer.

    Addends in which no weights took part are not of the update: they carry the state.
    """
    scale: float | None = 1.0
    node, crossed = region.end, list[str | None]()
    for _ in range(len(norms) + 1):
        every = addends(flow.nodes, node, region.start, {out, *norms})
        found = {n: f for n, f in every.items() if n in behind or _in(region.calls, n)}
        if len(found) != 1:
            break
        (leaf, factor), *_ = found.items()
        scale = None if scale is None or factor is None else scale * factor
        if leaf == out:
            norm = crossed[0] if len(crossed) == 1 else None
            return Writer(call, scale, norm)
        if leaf not in norms:
            break
        node, name = norms[leaf]
        crossed.append(name)
    return Writer(
        reason=f"what its last module with weights, {call.name}, gives is changed "
        "further before it becomes the update"
    )
