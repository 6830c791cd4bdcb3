"""The same result, seen with fewer layers or fewer rows."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from ..errors import ArgumentError
from .attribution import Attribution
from .flag import Flag
from .segment import Segment, block_segment


def coarsened(result: Attribution, layers: Iterable[int]) -> Attribution:
    """See `Attribution.coarsen`."""
    points = kept_points(result.layers, layers)
    credits = _summed(result, points[:-1], points)
    return replace(
        result,
        segments=merged(result.segments, points),
        levels=result.levels[:, points],
        credits=credits,
        writes=_writes(result, points, credits),
        top1=result.top1[:, points],
        pruned=result.pruned[:, points],
        rank=result.rank[:, points],
        lens_kl=result.lens_kl[:, points],
        top_ids=result.top_ids[:, points],
        top_probabilities=result.top_probabilities[:, points],
        flags=_flags_on(result, points, credits),
        components=None,
    )


def kept_points(path: Sequence[int], layers: Iterable[int]) -> list[int]:
    """Points of a path through fewer layers, counted on the path through all.

    Segment `i` of the coarse path replaces the segments from `points[i]` to before
    `points[i + 1]`. The last layer, and the end of the embedding's own segment, stay.

    Args:
        path: Layer each segment ends at.
        layers: Layers to keep.

    Raises:
        ArgumentError: If a layer is not on the path.
    """
    wanted = set(layers)
    if unknown := wanted - set(path):
        raise ArgumentError(
            f"`layers` names {sorted(unknown)}, which are not on the path {list(path)}."
        )
    wanted |= {path[-1], 0}
    last = {layer: i for i, layer in enumerate(path)}  # of its parts
    return [0, *(i + 1 for layer, i in last.items() if layer in wanted)]


def merged(segments: tuple[Segment, ...], points: list[int]) -> tuple[Segment, ...]:
    """The segments between some of the points."""
    return tuple(_merged(segments[a:b]) for a, b in pairwise(points))


def _summed(
    result: Attribution, starts: list[int], points: list[int]
) -> Float[np.ndarray, "rows merged"]:
    """Credits of merged segments.

    The sum, except where it runs over a level that is not finite: a coarse path
    that steps over that state has the observed credit, the change of its ends.
    """
    with np.errstate(invalid="ignore"):
        sums = np.add.reduceat(result.credits, starts, axis=1)
        if result.estimator != "observed":
            return sums
        change = np.diff(result.levels[:, points].astype(sums.dtype), axis=1)
    change[~np.isfinite(change)] = np.nan
    return np.where(np.isfinite(sums), sums, change)


def _writes(
    result: Attribution, points: list[int], credits: Float[np.ndarray, "rows merged"]
) -> Float[np.ndarray, "rows merged"]:
    """Writes of merged segments; unknown through a lens where layers are merged.

    There a merged write takes the first state through the map of the last layer, which
    was not read. All parts of one block are read through the same map.
    """
    if result.lens == "logit" and result.estimator == "observed":
        return credits
    sums = np.add.reduceat(result.writes, points[:-1], axis=1)
    spans = (result.segments[a:b] for a, b in pairwise(points))
    alike = [len({segment.layer for segment in span}) == 1 for span in spans]
    return np.where(alike, sums, np.nan)


def _flags_on(
    result: Attribution, points: list[int], credits: Float[np.ndarray, "rows merged"]
) -> tuple[Flag, ...]:
    """The flags on a path through some of the points.

    A flag of a point that is stepped over goes: an observed credit depends on the
    ends alone. A sum of others that is not finite takes it to its own end.
    """
    summed = result.estimator != "observed"
    kept = []
    for flag in result.flags:
        if flag.point is None:
            kept.append(flag)
            continue
        place = bisect_left(points, flag.point)
        odd = summed and not np.isfinite(credits[flag.row, place - 1])
        if odd or points[place] == flag.point:
            kept.append(replace(flag, point=place))
    return tuple(kept)


def _merged(segments: tuple[Segment, ...]) -> Segment:
    """One segment in the place of several neighbours."""
    if len(segments) == 1:
        return segments[0]
    end = segments[-1]
    merged = block_segment(segments[0].after, end.layer, ())
    module = end.block or end.module
    label = f"{merged.label} ({module})" if module else merged.label
    return replace(merged, label=label, module=module)


def selected(result: Attribution, rows: Sequence[int]) -> Attribution:
    """See `Attribution.select`."""
    if unknown := [row for row in rows if not -result.n_rows <= row < result.n_rows]:
        raise ArgumentError(
            f"`rows` names {unknown}, but the result has {result.n_rows} rows."
        )
    index = [row % result.n_rows for row in rows]
    inside = result.components
    return replace(
        result,
        positions=result.positions[index],
        targets=tuple(result.targets[row] for row in index),
        levels=result.levels[index],
        credits=result.credits[index],
        writes=result.writes[index],
        noise_floor=result.noise_floor[index],
        top1=result.top1[index],
        pruned=result.pruned[index],
        model_value=result.model_value[index],
        fidelity=result.fidelity[index],
        log_fidelity=result.log_fidelity[index],
        rank=result.rank[index],
        lens_kl=result.lens_kl[index],
        top_ids=result.top_ids[index],
        top_probabilities=result.top_probabilities[index],
        components=None if inside is None else inside.select(index),
        flags=tuple(
            replace(flag, row=new)
            for new, row in enumerate(index)
            for flag in result.flags
            if flag.row == row
        ),
    )
