"""What is inside segments: heads, neurons, experts, what heads read from each token."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from .segment import Segment

NUMBERED = frozenset({"head", "neuron", "expert", "source", "direction"})
"""Kinds of parts of which there are many; the others are what is left besides them."""


@dataclass(frozen=True, eq=False)
class Components:
    """Credits of the parts of segments; with `others`, each segment's credit.

    A *part* is one component of one segment: a head, a neuron, or one of the few things
    that are none (a bias, the offset of a norm). Parts beyond the largest of each row
    may have been left out (`n_parts` says how many there are); their credit is among
    the others.

    Attributes:
        by: What segments were opened by: "head", "neuron", "source" or "direction".
        segments: Index of the segment that each part lies in.
        kinds: What each part is: "head", "neuron", "expert", "source" (what a head read
            from a token), "head bias" (what it gave besides), "bias", "norm offset",
            "besides experts" (a shared expert, offsets), "carry" (a scaled state),
            "translation" (the lens's share), "direction" and "error" (what given
            directions miss).
        indices: Number of the head, neuron or expert, from 0; -1 where there is none.
            Rows differ where the largest were kept, or a router chose.
        sources: Index of the token that is read from; -1 where there is none.
        credits: Each part's credit, in the row's unit.
        others: What parts that are not listed have of each segment's credit, with
            rounding; all of it where a segment is not opened.
        n_parts: Numbered parts of each segment, listed or not.
        residual: What integration missed of each segment before closure; NaN where
            there was nothing to integrate.
        disagreement: The most by which two rules of integration differ on any part.
        closed: What closure spread over the parts.
        tolerance: What residual and disagreement were to be.
        tokens: Credit read from every token of the text, summed over heads, before
            anything was left out; None unless by source.
        reasons: Why segments were not opened, by index.
        router_weights: The weight that the router gave each expert it chose, NaN for
            other parts; None where there are no experts.
    """

    by: str
    segments: Int[np.ndarray, " parts"]
    kinds: tuple[str, ...]
    indices: Int[np.ndarray, "rows parts"]
    sources: Int[np.ndarray, "rows parts"]
    credits: Float[np.ndarray, "rows parts"]
    others: Float[np.ndarray, "rows segments"]
    n_parts: Int[np.ndarray, " segments"]
    residual: Float[np.ndarray, "rows segments"]
    disagreement: Float[np.ndarray, "rows segments"]
    closed: Float[np.ndarray, "rows segments"]
    tolerance: float
    tokens: Float[np.ndarray, "rows segments text"] | None
    reasons: dict[int, str]
    router_weights: Float[np.ndarray, "rows parts"] | None = None

    @property
    def totals(self) -> Float[np.ndarray, "rows segments"]:
        """Parts and others added up: each segment's credit."""
        found = self.others.copy()
        np.add.at(found.T, self.segments, self.credits.T)
        return found

    @property
    def certified(self) -> bool:
        """Whether every opened segment was integrated to the tolerance."""
        return not self.uncertified

    @property
    def uncertified(self) -> list[tuple[int, int]]:
        """(row, segment) of what was integrated beyond the tolerance."""
        worst = np.nan_to_num(np.fmax(self.residual, self.disagreement))
        found = np.argwhere(worst > self.tolerance).tolist()
        return [(row, segment) for row, segment in found]

    def largest(self, row: int, n: int) -> list[int]:
        """The numbered parts with the largest credits of a row, largest first."""
        numbered = [i for i, kind in enumerate(self.kinds) if kind in NUMBERED]
        sizes = np.nan_to_num(np.abs(self.credits[row]))
        return sorted(numbered, key=lambda part: -sizes[part])[:n]

    def name(self, row: int, part: int, segments: Sequence[Segment]) -> str:
        """What to call a part of a row, as "layer 30 neuron 1024"."""
        kind, index = self.kinds[part], int(self.indices[row, part])
        if kind == "source":
            kind = "head"
        number = f" {index}" if index >= 0 else ""
        return f"layer {segments[self.segments[part]].layer} {kind}{number}"

    def select(self, rows: Sequence[int]) -> "Components":
        """The same for some of the rows."""
        index = list(rows)
        found: dict[str, Any] = {n: getattr(self, n)[index] for n in self._by_row}
        return replace(self, **found)

    @classmethod
    def joined(cls, pieces: "Sequence[Components]") -> "Components":
        """The rows of several, one after the other; all else is of the first."""
        first = pieces[0]
        found: dict[str, Any] = {
            name: _stacked([getattr(piece, name) for piece in pieces])
            for name in first._by_row
        }
        return replace(first, **found)

    @property
    def _by_row(self) -> list[str]:
        """Names of what there is for every row."""
        return [name for name in _BY_ROW if getattr(self, name) is not None]


_BY_ROW = (
    "indices",
    "sources",
    "credits",
    "others",
    "residual",
    "disagreement",
    "closed",
    "tokens",
    "router_weights",
)
"""Fields whose first axis are rows."""


def shared_row(numbers: np.ndarray) -> bool:
    """Whether an array holds one row only, repeated for all."""
    return numbers.strides[0] == 0 or len(numbers) == 1


def _stacked(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The rows of several arrays; one row that they all repeat stays one."""
    first = arrays[0][:1]
    if all(shared_row(a) and np.array_equal(a[:1], first) for a in arrays):
        n_rows = sum(map(len, arrays))
        return np.broadcast_to(first, (n_rows, *first.shape[1:]))
    return np.concatenate(arrays)
