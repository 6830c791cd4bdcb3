"""The operations of one forward pass as a graph: which value was made from which."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..structure import Place
from .sublayers import Site

Terms = tuple[tuple[int, float | None], ...]
"""Nodes and factors of a sum; None for a factor that is no single number."""


@dataclass(eq=False)
class ModuleCall:
    """One call of a module, and the nodes made while it ran.

    Attributes:
        name: The module's name in the model.
        module: The module.
        block: Layer number of the block that ran.
        number: How often the module was called before within that block.
        outer: The call it ran in.
        first: Index of the first node made while it ran.
        last: Index of the first node made after it returned.
        given: Nodes of the floating-point tensors among its arguments.
        returned: Nodes of those in its output.
    """

    name: str
    module: nn.Module
    block: int
    number: int
    outer: "ModuleCall | None"
    first: int
    last: int = -1
    given: dict[Place, int] = field(default_factory=dict)
    returned: dict[Place, int] = field(default_factory=dict)

    @property
    def made(self) -> range:
        """The nodes that were made while it ran."""
        return range(self.first, self.last)

    @property
    def chain(self) -> Iterator["ModuleCall"]:
        """This call and those it ran in, from the inside out."""
        call: ModuleCall | None = self
        while call is not None:
            yield call
            call = call.outer


@dataclass(eq=False)
class Node:
    """A value that stems from `h_0`.

    Models work in place and through views, so a node is a value, not a tensor: after a
    write, every tensor that shares the memory stands for another node.

    Attributes:
        op: Name of the operator that made it; "" for `h_0` and for joined views.
        parents: The values it was made from.
        call: The innermost module call it was made in.
        weighty: Whether a matrix of weights took part.
        joined: Whether a tensor with numbers of its own for each token, which does not
            stem from `h_0`, took part.
        shape: Shape of the tensor.
        dtype: Its dtype.
        terms: The value as a sum of multiples of its parents, if it is one.
        value: The numbers, where they were asked for and are as many as the stream's.
    """

    op: str
    parents: tuple[int, ...]
    call: ModuleCall | None
    weighty: bool
    joined: bool
    shape: torch.Size
    dtype: torch.dtype
    terms: Terms | None = None
    value: Tensor | None = None


@dataclass(eq=False)
class Flow:
    """What one forward pass did with the stream.

    Attributes:
        nodes: Every value that stems from `h_0`, in the order in which they were made.
        states: Nodes of `h_0`, `h_1`, …; None for one that does not stem from `h_0`.
        calls: Module calls behind `h_0`, in the order in which they began.
        sites: Where hooks find a node as large as the stream, by block and node.
    """

    nodes: list[Node] = field(default_factory=list)
    states: list[int | None] = field(default_factory=list)
    calls: list[ModuleCall] = field(default_factory=list)
    sites: dict[tuple[int, int], list[Site]] = field(
        default_factory=lambda: defaultdict(list)
    )
