r"""Below the parts of a block: every segment's credit, shared over what it consists of.

Along each segment the level's gradient is averaged once (`averaged_gradient`), with a
certificate, and closed so that its product with the segment's step is the credit. A
part that adds `u` then has `<g, u>`: one vector per segment serves any number of parts
of any kind, and parts of parts add up. Where parts of a block stand side by side, a
segment's credit is a weighted mean over several lines, and so is its gradient.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from jaxtyping import Bool, Float, Int

from ..errors import ArgumentError, FidelityError
from ..records import Flag, Segment
from ..records.components import NUMBERED, Components
from .integral.averaged import TOLERANCE
from .opened import Opening, directed, openings
from .reading import PathReading
from .strokes import Opened, Question, Strokes

_COPIES = 12
"""Vectors in float64 that are held per line and row while gradients are averaged."""

_PART_COPIES = 4
"""Numbers in float64 that are held per part and row: its share, and how far two rules
are apart on it, each of all rows and of those that take their turn."""


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


def certificate_flags(
    found: Components, segments: Sequence[Segment], *, strict: bool
) -> tuple[Flag, ...]:
    """A flag for everything that was integrated beyond the tolerance.

    Raises:
        FidelityError: If there is anything, and `strict`.
    """
    flags = []
    for row, at in found.uncertified:
        worst = float(np.fmax(found.residual[row, at], found.disagreement[row, at]))
        detail = (
            f"The integral inside {segments[at].label} is certified to {worst:.1g} "
            f"only, not to {found.tolerance:.1g}."
        )
        flags.append(Flag(row, at + 1, "uncertified", detail))
    if flags and strict:
        raise FidelityError(
            f"{flags[0].detail} Shares would add up all the same, but need not be "
            "those of the parts. Use precision=torch.float64, or `strict=False` to see "
            "them flagged."
        )
    return tuple(flags)


def _batches(question: Question, opened: list[Opening]) -> Iterator[list[Opening]]:
    """Segments with equally many lines that fit the budget together."""
    n_rows = len(question.rows.targets)
    for n_lines, group in groupby(opened, lambda opening: len(opening.strokes)):
        some: list[Opening] = []
        held = 0
        for opening in group:
            vectors = _COPIES * question.readout.d_model * n_lines
            parts = _PART_COPIES * opening.n_parts(question.by)
            needed = 8 * n_rows * (vectors + parts)
            if some and held + needed > question.memory_budget:
                yield some
                some, held = [], 0
            some.append(opening)
            held += needed
        yield some


class _Table:
    """The record as it fills up."""

    def __init__(
        self, question: Question, credits: Float[np.ndarray, "rows segments"]
    ) -> None:
        """Begin with every segment unopened: all of its credit is others'."""
        self.question, self.others = question, credits.copy()
        reading = question.by == "source" and question.directions is None
        n_text = len(question.path.trace.token_ids) if reading else 0
        self.tokens = np.zeros((*credits.shape, n_text))
        self.certificate = np.full((3, *credits.shape), np.nan)
        self.n_parts = np.zeros(credits.shape[1], np.int64)
        self.pieces: list[_Piece] = []

    def put(self, segment: int, found: Opened) -> None:
        """Take in what is inside one segment."""
        certificate = (found.residual, found.disagreement, found.closed)
        for place, known in enumerate(certificate):
            self.certificate[place, :, segment] = known.cpu().numpy()
        for shares in found.shares:
            values = shares.values.cpu().numpy()
            kept = np.ones(values.shape[1], bool)
            if shares.kind == "source":
                tokens = self.tokens[:, segment].T  # a view
                np.add.at(tokens, shares.sources, values.T)
            if shares.kind in NUMBERED:
                self.n_parts[segment] += values.shape[1]
                kept = largest(values, self.question.top)
            numbers = np.stack([shares.indices, shares.sources])[:, kept]
            self._add(_Piece(segment, shares.kind, numbers, values[:, kept]))

    def put_translations(
        self, translations: Float[np.ndarray, "rows segments"]
    ) -> None:
        """Take in what the lens moved, where segments are opened."""
        opened = np.isfinite(self.certificate[0]).any(0)
        for segment in np.flatnonzero(opened).tolist():
            moved = translations[:, [segment]]
            self._add(_Piece(segment, "translation", np.full((2, 1), -1), moved))

    def _add(self, piece: "_Piece") -> None:
        """Parts whose credit is no longer others'."""
        self.pieces.append(piece)
        self.others[:, piece.segment] -= piece.credits.sum(1)

    def record(self, reasons: dict[int, str]) -> Components:
        """What was taken in, parts in the order of segments."""
        pieces = sorted(self.pieces, key=lambda piece: piece.segment)
        numbers = np.concatenate([piece.numbers for piece in pieces], 1)
        sizes = [piece.credits.shape[1] for piece in pieces]
        by = "direction" if self.question.directions else self.question.by
        return Components(
            by=by,
            segments=np.repeat([piece.segment for piece in pieces], sizes),
            kinds=tuple(
                piece.kind
                for piece, size in zip(pieces, sizes, strict=True)
                for _ in range(size)
            ),
            indices=numbers[0],
            sources=numbers[1],
            credits=np.concatenate([piece.credits for piece in pieces], 1),
            others=self.others,
            n_parts=self.n_parts,
            residual=self.certificate[0],
            disagreement=self.certificate[1],
            closed=self.certificate[2],
            tolerance=TOLERANCE,
            tokens=self.tokens if by == "source" else None,
            reasons=reasons,
        )


@dataclass(frozen=True, eq=False)
class _Piece:
    """Parts of one kind in one segment.

    Attributes:
        segment: Index of the segment.
        kind: What they are.
        numbers: Their own numbers, and those of the tokens they read from.
        credits: Their credits.
    """

    segment: int
    kind: str
    numbers: Int[np.ndarray, "2 parts"]
    credits: Float[np.ndarray, "rows parts"]


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
