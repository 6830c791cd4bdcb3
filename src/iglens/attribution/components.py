r"""Below the parts of a block: every segment's credit, shared over what it consists of.

Along each segment the level's gradient is averaged once (`averaged_gradient`), with a
certificate, and closed so that its product with the segment's step is the credit. A
part that adds `u` then has `<g, u>`: one vector per segment serves any number of parts
of any kind, and parts of parts add up. Where parts of a block stand side by side, a
segment's credit is a weighted mean over several lines, and so is its gradient.
"""

from collections.abc import Iterator
from itertools import groupby

import numpy as np
from jaxtyping import Bool, Float

from ..errors import ArgumentError
from ..records.components import NUMBERED, Components
from .averaged import TOLERANCE
from .opened import Opening, directed, openings
from .reading import PathReading
from .strokes import Opened, Question, Strokes

_COPIES = 12
"""Vectors in float64 that are held per line and row while gradients are averaged."""


def components(
    question: Question,
    reading: PathReading,
    credits: Float[np.ndarray, "rows segments"],
    writes: Float[np.ndarray, "rows segments"],
) -> Components:
    """Share the credits of the segments that can be opened.

    Args:
        question: What is opened.
        reading: The levels of every state that was read.
        credits: The credit of every segment.
        writes: The part of it that the block wrote.

    Raises:
        ArgumentError: If nothing can be opened, or a row explains no tokens.
    """
    for target in question.rows.targets:
        if not target.of_tokens:
            raise ArgumentError(
                f"{target.text!r} cannot be opened by {question.by}: only levels of "
                "tokens can. Use `sublayer`."
            )
    reasons: dict[int, str] = {}
    if question.directions is None:
        opened, reasons = openings(question.path, question.by)
    else:
        opened = directed(question.path, question.directions)
    table = _Table(question, credits)
    for some in _batches(question, opened):
        found = Strokes.of(question, some, reading).opened()
        for opening, each in zip(some, found, strict=True):
            table.put(opening.segment, each)
    if question.path.lens is not None:
        table.put_translations(credits - writes)
    return table.record(reasons)


def _batches(question: Question, opened: list[Opening]) -> Iterator[list[Opening]]:
    """Segments with equally many lines that fit the budget together."""
    each = _COPIES * 8 * question.readout.d_model * len(question.rows.targets)
    for n_lines, group in groupby(opened, lambda opening: len(opening.strokes)):
        step = max(1, question.memory_budget // (each * n_lines))
        some = list(group)
        for at in range(0, len(some), step):
            yield some[at : at + step]


class _Table:
    """The record as it fills up."""

    def __init__(
        self, question: Question, credits: Float[np.ndarray, "rows segments"]
    ) -> None:
        """Begin with every segment unopened: all of its credit is others'."""
        self.question, self.others = question, credits.copy()
        n_text = len(question.path.trace.token_ids)
        self.tokens = np.zeros((*credits.shape, n_text))
        self.certificate = np.full((3, *credits.shape), np.nan)
        self.n_parts = np.zeros(credits.shape[1], np.int64)
        self.segments: list[int] = []
        self.kinds: list[str] = []
        self.numbers: list[tuple[int, int]] = []
        self.credits: list[Float[np.ndarray, " rows"]] = []

    def put(self, segment: int, found: Opened) -> None:
        """Take in what is inside one segment."""
        certificate = (found.residual, found.disagreement, found.closed)
        for place, known in enumerate(certificate):
            self.certificate[place, :, segment] = known.cpu().numpy()
        for shares in found.shares:
            values = shares.values.cpu().numpy()
            if shares.kind == "source":
                for token in np.unique(shares.sources):
                    own = values[:, shares.sources == token].sum(1)
                    self.tokens[:, segment, token] += own
            kept = np.ones(values.shape[1], bool)
            if shares.kind in NUMBERED:
                self.n_parts[segment] += values.shape[1]
                kept = largest(values, self.question.top)
            for at in np.flatnonzero(kept).tolist():
                numbers = int(shares.indices[at]), int(shares.sources[at])
                self._add(segment, shares.kind, numbers, values[:, at])

    def put_translations(
        self, translations: Float[np.ndarray, "rows segments"]
    ) -> None:
        """Take in what the lens moved, where segments are opened."""
        for segment in np.flatnonzero(self.n_parts).tolist():
            self._add(segment, "translation", (-1, -1), translations[:, segment])

    def _add(
        self,
        segment: int,
        kind: str,
        numbers: tuple[int, int],
        credits: Float[np.ndarray, " rows"],
    ) -> None:
        """One part, whose credit is no longer others'."""
        self.segments.append(segment)
        self.kinds.append(kind)
        self.numbers.append(numbers)
        self.credits.append(credits)
        self.others[:, segment] -= credits

    def record(self, reasons: dict[int, str]) -> Components:
        """What was taken in, parts in the order of segments."""
        order = np.argsort(self.segments, kind="stable").tolist()
        numbers = np.array([self.numbers[i] for i in order]).reshape(-1, 2)
        by = "direction" if self.question.directions else self.question.by
        return Components(
            by=by,
            segments=np.array([self.segments[i] for i in order], np.int64),
            kinds=tuple(self.kinds[i] for i in order),
            indices=numbers[:, 0],
            sources=numbers[:, 1],
            credits=np.stack([self.credits[i] for i in order], 1),
            others=self.others,
            n_parts=self.n_parts,
            residual=self.certificate[0],
            disagreement=self.certificate[1],
            closed=self.certificate[2],
            tolerance=TOLERANCE,
            tokens=self.tokens if by == "source" else None,
            reasons=reasons,
        )


def largest(
    values: Float[np.ndarray, "rows parts"], top: int | None
) -> Bool[np.ndarray, " parts"]:
    """The parts that are among the largest of some row; all without a limit."""
    n_parts = values.shape[1]
    kept = np.zeros(n_parts, bool)
    if top is None or top >= n_parts:
        return ~kept
    sizes = np.nan_to_num(np.abs(values))
    picked = np.argpartition(-sizes, top, axis=1)[:, :top]
    kept[picked] = True
    return kept
