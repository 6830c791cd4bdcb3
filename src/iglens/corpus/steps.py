"""What two runs have in common of their paths, so that credits can be compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
from jaxtyping import Float

from ..records import Segment
from ..records.run_difference import Steps

TENTHS = 10
"""Stretches of the depth that models of different depth are compared by."""


@dataclass(frozen=True, eq=False)
class Common:
    """Steps that credits of both paths add up to.

    Attributes:
        by: What they are.
        labels: What to show for each.
        ends: Layer each ends at, or share of the depth.
        a: What share of each segment of a's path lies in each step.
        b: The same of b's.
        scale_a: What a's depths are divided by.
        scale_b: What b's are.
    """

    by: Steps
    labels: tuple[str, ...]
    ends: tuple[float, ...]
    a: Float[np.ndarray, "segments_a steps"]
    b: Float[np.ndarray, "segments_b steps"]
    scale_a: float = 1.0
    scale_b: float = 1.0

    @classmethod
    def of(
        cls, a: Sequence[Segment], b: Sequence[Segment], n_layers: tuple[int, int]
    ) -> "Common":
        """The finest steps that both paths have.

        Args:
            a: One path.
            b: The other.
            n_layers: Layers of the two models.
        """
        if [s.place for s in a] == [s.place for s in b]:
            one = np.eye(len(a))
            labels = tuple(segment.label for segment in a)
            return cls("segments", labels, tuple(float(s.layer) for s in a), one, one)
        embedding = any(segment.layer == 0 for segment in (*a, *b))
        if n_layers[0] == n_layers[1]:
            layers = sorted({s.layer for s in a} & {s.layer for s in b} | {0})
            labels = tuple(
                f"layer {end}" if end == start + 1 else f"layers {start + 1}-{end}"
                for start, end in pairwise(layers)
            )
            stops = [float(layer) for layer in layers]
            return cls._cut("layers", a, b, (1, 1), stops, labels, embedding)
        stops = [at / TENTHS for at in range(TENTHS + 1)]
        labels = tuple(
            f"{start:.0%} to {end:.0%} of the depth" for start, end in pairwise(stops)
        )
        return cls._cut("fractions", a, b, n_layers, stops, labels, embedding)

    @classmethod
    def _cut(
        cls,
        by: Steps,
        a: Sequence[Segment],
        b: Sequence[Segment],
        scales: tuple[int, int],
        stops: Sequence[float],
        labels: tuple[str, ...],
        embedding: bool,
    ) -> "Common":
        """Steps between some stops, and one for the embedding's own segment."""
        one, other = (float(scale) for scale in scales)
        ends = tuple(float(stop) for stop in stops[1:])
        if embedding:
            labels, ends = ("embedding", *labels), (0.0, *ends)
        return cls(
            by,
            labels,
            ends,
            _shares(a, one, stops, embedding),
            _shares(b, other, stops, embedding),
            one,
            other,
        )


def _shares(
    path: Sequence[Segment], scale: float, stops: Sequence[float], embedding: bool
) -> Float[np.ndarray, "segments steps"]:
    """What share of each segment lies between each two stops, as if it were even."""
    found = np.zeros((len(path), len(stops) - 1))
    own = np.zeros((len(path), int(embedding)))
    at = 0
    for layer, group in groupby(path, lambda segment: segment.layer):
        members = list(group)
        first = members[0].after or 0
        for place in range(len(members)):
            if layer == 0:
                own[at, 0] = 1
            else:
                cuts = (place, place + 1)
                start, end = (
                    (first + (layer - first) * cut / len(members)) / scale
                    for cut in cuts
                )
                inside = np.minimum(end, stops[1:]) - np.maximum(start, stops[:-1])
                found[at] = np.maximum(inside, 0) / (end - start)
            at += 1
    return np.concatenate([own, found], axis=1)
