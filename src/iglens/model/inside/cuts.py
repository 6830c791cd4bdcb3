"""Which values every path of a graph crosses, and what a value is the sum of."""

from collections.abc import Collection, Sequence
from itertools import pairwise

from .dataflow import Node


def between(
    nodes: Sequence[Node], start: int, end: int, *, without: int | None = None
) -> list[int]:
    """The nodes that lie on some path from `start` to `end`, both included.

    Empty if there is no path. Paths through `without` do not count.
    """
    reached = {start}
    for index in range(start + 1, end + 1):
        if index != without and any(
            parent in reached for parent in nodes[index].parents
        ):
            reached.add(index)
    if end not in reached:
        return []
    leading = {end}
    for index in range(end, start, -1):
        if index in leading:
            leading |= reached.intersection(nodes[index].parents)
    return sorted(leading)


def cuts(nodes: Sequence[Node], path: Sequence[int]) -> list[int]:
    """The nodes that every path from the first to the last of `path` crosses.

    Nodes come in the order in which they were made, so a path only ever moves forward:
    it misses a node exactly if one of its edges passes over it.
    """
    rank = {node: position for position, node in enumerate(path)}
    over = [0] * (len(path) + 1)
    for node, position in rank.items():
        for parent in nodes[node].parents if position else ():
            if parent in rank:
                over[rank[parent] + 1] += 1
                over[position] -= 1
    crossed, found = 0, []
    for position, node in enumerate(path):
        crossed += over[position]
        if crossed == 0:
            found.append(node)
    return found


def stretches(nodes: Sequence[Node], path: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbouring cuts between which weights act: each is a part, or several."""
    members = sorted(node for node in path if nodes[node].weighty)
    return [
        (before, after)
        for before, after in pairwise(cuts(nodes, path))
        if any(before < node <= after for node in members)
    ]


def descendants(
    nodes: Sequence[Node], path: Sequence[int], sources: Collection[int]
) -> set[int]:
    """The nodes of a path that stem from some of them, these included."""
    found = set(sources)
    for node in path:
        if not found.isdisjoint(nodes[node].parents):
            found.add(node)
    return found


def addends(
    nodes: Sequence[Node], node: int, start: int, stops: Collection[int]
) -> dict[int, float | None]:
    """A value as a sum of multiples of others.

    Args:
        nodes: The graph.
        node: The value.
        start: The state that is not taken apart.
        stops: Others that are not.

    Returns:
        Factors by node; None for a factor that is no single number.
    """
    factors: dict[int, float | None] = {node: 1.0}
    for index in range(node, start, -1):
        terms = nodes[index].terms
        if index not in factors or index in stops or not terms:
            continue
        factor = factors.pop(index)
        for parent, times in terms:
            product = None if factor is None or times is None else factor * times
            sofar = factors.get(parent, 0.0)
            factors[parent] = (
                None if product is None or sofar is None else sofar + product
            )
    return factors
