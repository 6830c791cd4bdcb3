"""The path: baseline, then chosen layers in order, always ending at the last."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from numbers import Integral
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import ArgumentError, ArgumentTypeError
from ..inside.parted import Parted
from ..readout.lens import AbstractLens, LogitLens
from ..records import Segment, block_segment
from ..records.segment import part_segment
from ..trace import Trace
from .baseline import Baseline, BaselineLike, resolve_baseline


@dataclass(frozen=True, eq=False)
class Path:
    """Which states are visited, in order.

    States are read that are no points of the path where parts of a block stand side
    by side; `Block` says which. Elsewhere every state that is read is a point.

    Attributes:
        trace: The states.
        baseline: The first point.
        indices: Points of the trace that follow it (or begin it, for "embedding").
        lens: What every point is translated by; None reads the states as they are.
        parted: Whether the path goes through the parts of blocks where it can.
    """

    trace: Trace
    baseline: Baseline
    indices: tuple[int, ...]
    lens: AbstractLens | None = None
    parted: bool = False

    @property
    def n_states(self) -> int:
        """Number of states to read, the baseline included."""
        return self.blocks[-1].end + 1

    @cached_property
    def blocks(self) -> tuple["Block", ...]:
        """The steps from each layer of the path to the next."""
        ends: list[int | None] = [self.trace.layers[i] for i in self.indices]
        if self.baseline.states is not None:
            ends = [None, *ends]
        found: list[Block] = []
        for after, layer in pairwise(ends):
            assert layer is not None  # only the baseline has none
            single = self.parted and after is not None and layer == after + 1
            parts = self.trace.inside.get(layer) if single else None
            start = found[-1].end if found else 0
            found.append(Block(after, layer, start, parts))
        return tuple(found)

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The steps between neighbouring points."""
        modules = self.trace.modules
        return tuple(
            segment for block in self.blocks for segment in block.segments(modules)
        )

    @cached_property
    def translators(self) -> tuple[int, ...]:
        """Layer whose map every state goes through; the baseline takes the first."""
        first = self.blocks[0]
        layers = [first.layer if first.after is None else first.after]
        for block in self.blocks:
            layers += [block.layer] * (block.end - block.start)
        return tuple(layers)

    def at(self, rows: slice) -> "Path":
        """The same path at some of the positions, counted by row of the trace."""
        start = self.baseline
        if start.states is not None:
            start = replace(start, states=start.states[rows])
        return replace(self, trace=self.trace.at(rows), baseline=start)

    def states(self, rows: slice) -> Float[Tensor, "points rows d_model"]:
        """All states of some rows, as they are read."""
        return self._translated(self.raw_states(rows), self.translators)

    def starts(self, rows: slice) -> Float[Tensor, "segments rows d_model"]:
        """The state before each of them, through the map of the layer it leads to."""
        return self._translated(self.raw_states(rows)[:-1], self.translators[1:])

    def raw_states(self, rows: slice) -> Float[Tensor, "points rows d_model"]:
        """All states of some rows, as the model produced them."""
        first, *others = [self.block_states(block, rows) for block in self.blocks]
        return torch.cat([first, *(states[1:] for states in others)])

    def block_states(
        self, block: "Block", rows: slice = slice(None)
    ) -> Float[Tensor, "points rows d_model"]:
        """The states of one block, from its start to its end, as they were produced."""
        states, layers = self.trace.states, self.trace.layers
        end = states[layers.index(block.layer), rows]
        if block.after is not None:
            start = states[layers.index(block.after), rows]
        else:
            assert self.baseline.states is not None  # such a block starts there
            start = self.baseline.states[rows].to(end.dtype)
        if block.parts is None:
            return torch.stack([start, end])
        inner = block.parts.inner(start, end, rows)
        return torch.cat([start[None], inner, end[None]])

    def named_points(self) -> Iterator[tuple[str, Float[Tensor, "rows d_model"]]]:
        """Every point in words, with the state, or the vector, that it rests on."""
        after = self.blocks[0].after
        states = self.trace.states
        if self.baseline.states is not None:
            yield "of the baseline", self.baseline.states
        else:
            yield f"of layer {after}", states[self.indices[0]]
        for block in self.blocks:
            inner = () if block.parts is None else block.parts.between
            yield from ((f"inside layer {block.layer}", each) for each in inner)
            index = self.trace.layers.index(block.layer)
            yield f"of layer {block.layer}", states[index]

    def through_lens(
        self, states: Float[Tensor, "rows d_model"], layer: int
    ) -> Float[Tensor, "rows d_model"]:
        """States through the map of a layer."""
        return self._translated(states[None], (layer,))[0]

    def back_through_lens(
        self, gradient: Float[Tensor, "rows d_model"], layer: int
    ) -> Float[Tensor, "rows d_model"]:
        """The gradient with respect to a state, from that of its translation."""
        return gradient if self.lens is None else self.lens.pull(gradient, layer)

    def _translated(self, states: Tensor, layers: tuple[int, ...]) -> Tensor:
        """States through the lens, if there is one."""
        return states if self.lens is None else self.lens.translate(states, layers)

    def row_chunks(self, n_rows: int, points_at_once: int) -> Iterator[slice]:
        """Slices of rows whose whole paths may be read at once."""
        return row_chunks(n_rows, self.n_states, points_at_once)


@dataclass(frozen=True, eq=False)
class Block:
    """The step from one layer of a path to the next.

    Attributes:
        after: Layer it starts at; None at a baseline off the path.
        layer: Layer it ends at.
        start: Index of the state it starts at, among those that are read.
        parts: What lies inside, if the path goes there.
    """

    after: int | None
    layer: int
    start: int
    parts: Parted | None

    @property
    def end(self) -> int:
        """Index of the state it ends at."""
        return self.start + 1 + (0 if self.parts is None else self.parts.n_inner)

    def segments(self, modules: tuple[str, ...]) -> tuple[Segment, ...]:
        """Its segments: one, or one for each part."""
        if self.parts is None:
            return (block_segment(self.after, self.layer, modules),)
        named = zip(self.parts.names, self.parts.modules, strict=True)
        block = modules[self.layer - 1]
        return tuple(part_segment(self.layer, *each, block) for each in named)


def row_chunks(n_rows: int, n_points: int, points_at_once: int) -> Iterator[slice]:
    """Slices of rows whose paths of so many points may be read at once."""
    step = max(1, points_at_once // n_points)
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


Level = Literal["layer", "sublayer", "head", "neuron", "source"]
"""How far down credits go: whole layers, their parts, or what is inside these."""

LEVELS: tuple[Level, ...] = get_args(Level)


def check_level(by: str) -> Level:
    """The level of this name.

    Raises:
        ArgumentError: If there is none.
    """
    for level in LEVELS:
        if by == level:
            return level
    raise ArgumentError(f"`by` is {by!r}; known are {', '.join(LEVELS)}.")


def check_top(top: object) -> None:
    """Refuse what is no number of parts to keep.

    Raises:
        ArgumentTypeError: If it is no whole number.
        ArgumentError: If nothing would be kept.
    """
    if top is None:
        return
    if isinstance(top, bool) or not isinstance(top, Integral):
        raise ArgumentTypeError(f"`top` is {top!r}; it needs a whole number, or None.")
    if top < 1:
        raise ArgumentError(
            f"`top` is {top}; at least 1 part must be kept. Use None for all, or "
            '`by="sublayer"` for none.'
        )


def make_path(
    trace: Trace,
    layers: Sequence[int] | None,
    baseline: BaselineLike,
    lens: AbstractLens | None = None,
    *,
    parted: bool = False,
) -> Path:
    """A path through some layers of a trace.

    Args:
        trace: The states.
        layers: Layers to stop at; None for all that were traced. The embedding and
            the last layer are always stops.
        baseline: Where to start; see `resolve_baseline`.
        lens: What to read through; None and the logit lens are the same.
        parted: Whether to stop between the parts of blocks too.

    Raises:
        ArgumentError: If a layer was not traced, or nothing inside them though
            `parted`, or the baseline or lens does not fit.
    """
    if isinstance(lens, LogitLens):
        lens = None
    stops = path_layers(trace.n_layers, layers, known=trace.layers)
    start = resolve_baseline(trace, baseline, stops)
    if not start.through_embedding:
        stops = stops[1:]
    indices = tuple(trace.layers.index(layer) for layer in stops)
    if parted and not (trace.inside or trace.whole):
        raise ArgumentError(
            "This trace holds nothing from inside the blocks: make it with "
            '`Decoder.trace(…, by="sublayer")`.'
        )
    return Path(trace, start, indices, lens, parted)


def path_layers(
    n_layers: int,
    layers: Sequence[int] | None,
    known: Sequence[int] | None = None,
) -> tuple[int, ...]:
    """Layers of a path, ascending, with 0 and the last.

    Raises:
        ArgumentError: If one is out of range or was not traced.
    """
    known = range(n_layers + 1) if known is None else known
    if layers is None:
        return tuple(known)
    if unknown := sorted(set(layers) - set(known)):
        raise ArgumentError(
            f"`layers` names {unknown}; this path can stop at layers 1 to {n_layers}"
            + ("." if len(known) == n_layers + 1 else f", out of {list(known)}.")
        )
    return tuple(sorted({0, *layers, n_layers}))


def repeat_per_point(
    tokens: Int[Tensor, "rows slots"], n_points: int
) -> Int[Tensor, "points slots"]:
    """The rows' tokens for every point of their paths, point-major."""
    return tokens.repeat(n_points, 1)
