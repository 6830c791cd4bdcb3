"""What is inside segments: heads, neurons, experts, what heads read from each token."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
    """

    by: str
    segments: Int[np.ndarray, " parts"]
    kinds: tuple[str, ...]
    indices: Int[np.ndarray, " parts"]
    sources: Int[np.ndarray, " parts"]
    credits: Float[np.ndarray, "rows parts"]
    others: Float[np.ndarray, "rows segments"]
    n_parts: Int[np.ndarray, " segments"]
    residual: Float[np.ndarray, "rows segments"]
    disagreement: Float[np.ndarray, "rows segments"]
    closed: Float[np.ndarray, "rows segments"]
    tolerance: float
    tokens: Float[np.ndarray, "rows segments text"] | None
    reasons: dict[int, str]

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

    def name(self, part: int, segments: Sequence[Segment]) -> str:
        """What to call a part, as "layer 30 neuron 1024"."""
        kind, index = self.kinds[part], int(self.indices[part])
        if kind == "source":
            kind = "head"
        number = f" {index}" if index >= 0 else ""
        return f"layer {segments[self.segments[part]].layer} {kind}{number}"

    def select(self, rows: Sequence[int]) -> "Components":
        """The same for some of the rows."""
        index = list(rows)
        return replace(
            self,
            credits=self.credits[index],
            others=self.others[index],
            residual=self.residual[index],
            disagreement=self.disagreement[index],
            closed=self.closed[index],
            tokens=None if self.tokens is None else self.tokens[index],
        )
