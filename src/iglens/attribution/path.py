"""The path: baseline, then chosen layers in order, always ending at the last."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import ArgumentError
from ..readout.lens import AbstractLens, LogitLens
from ..records import Segment, block_segment
from ..trace import Trace
from .baseline import Baseline, BaselineLike, resolve_baseline


@dataclass(frozen=True, eq=False)
class Path:
    """Which states are visited, in order.

    Attributes:
        trace: The states.
        baseline: The first point.
        indices: Points of the trace that follow it (or begin it, for "embedding").
        lens: What every point is translated by; None reads the states as they are.
    """

    trace: Trace
    baseline: Baseline
    indices: tuple[int, ...]
    lens: AbstractLens | None = None

    @property
    def n_points(self) -> int:
        """Number of points, the baseline included."""
        return len(self.indices) + (self.baseline.states is not None)

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The steps between neighbouring points."""
        ends: list[int | None] = [self.trace.layers[i] for i in self.indices]
        if self.baseline.states is not None:
            ends = [None, *ends]
        return tuple(
            block_segment(after, layer, self.trace.modules)
            for after, layer in pairwise(ends)
            if layer is not None
        )

    @cached_property
    def translators(self) -> tuple[int, ...]:
        """Layer whose map every point goes through; the baseline takes the first."""
        layers = [self.trace.layers[i] for i in self.indices]
        return tuple(layers[:1] * (self.n_points - len(layers)) + layers)

    def states(self, rows: slice) -> Float[Tensor, "points rows d_model"]:
        """All points of some rows, as they are read."""
        return self._translated(self._states(rows), self.translators)

    def starts(self, rows: slice) -> Float[Tensor, "segments rows d_model"]:
        """Where every segment starts, through the map of the layer it ends at."""
        return self._translated(self._states(rows)[:-1], self.translators[1:])

    def _states(self, rows: slice) -> Float[Tensor, "points rows d_model"]:
        """All points of some rows, as the model produced them."""
        path = self.trace.states[list(self.indices), rows]
        if self.baseline.states is None:
            return path
        return torch.cat([self.baseline.states[None, rows].to(path.dtype), path])

    def _translated(self, states: Tensor, layers: tuple[int, ...]) -> Tensor:
        """States through the lens, if there is one."""
        return states if self.lens is None else self.lens.translate(states, layers)

    def row_chunks(self, n_rows: int, points_at_once: int) -> Iterator[slice]:
        """Slices of rows whose whole paths may be read at once."""
        return row_chunks(n_rows, self.n_points, points_at_once)


def row_chunks(n_rows: int, n_points: int, points_at_once: int) -> Iterator[slice]:
    """Slices of rows whose paths of so many points may be read at once."""
    step = max(1, points_at_once // n_points)
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


def make_path(
    trace: Trace,
    layers: Sequence[int] | None,
    baseline: BaselineLike,
    lens: AbstractLens | None = None,
) -> Path:
    """A path through some layers of a trace.

    Args:
        trace: The states.
        layers: Layers to stop at; None for all that were traced. The embedding and
            the last layer are always stops.
        baseline: Where to start; see `resolve_baseline`.
        lens: What to read through; None and the logit lens are the same.

    Raises:
        ArgumentError: If a layer was not traced, or the baseline or lens does not fit.
    """
    if isinstance(lens, LogitLens):
        lens = None
    stops = path_layers(trace.n_layers, layers, known=trace.layers)
    start = resolve_baseline(trace, baseline, stops)
    if not start.through_embedding:
        stops = stops[1:]
    indices = tuple(trace.layers.index(layer) for layer in stops)
    return Path(trace, start, indices, lens)


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
