r"""Below the parts of a block: every segment's credit, shared over what it consists of.

Along each segment the level's gradient is averaged once (`averaged_gradient`), with a
certificate, and closed so that its product with the segment's step is the credit. A
part that adds `u` then has `<g, u>`: one vector per segment serves any number of parts
of any kind, and parts of parts add up. Where parts of a block stand side by side, a
segment's credit is a weighted mean over several lines, and so is its gradient.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
from jaxtyping import Float

from ..errors import ArgumentError, FidelityError
from ..records import Flag, Segment
from ..records.components import Components
from .opened import Opening, directed, openings
from .reading import PathReading
from .shared import Table
from .strokes import Question, Strokes

_COPIES = 12
"""Vectors in float64 that are held per line and row while gradients are averaged."""

_PART_COPIES = 6
"""Numbers in float64 that are held per part and row: its share, and how far two rules
are apart on it, each of all rows and of those that take their turn, and the result."""

_RESULT_BUDGETS = 64
"""How many times the memory budget a result may take: 4 GiB of the usual one."""


def components(
    question: Question,
    reading: PathReading,
    credits: Float[np.ndarray, "rows segments"],
    writes: Float[np.ndarray, "rows segments"],
) -> Components:
    """Share the credits of the segments that can be opened.

    As many rows at a time as the memory budget allows, whatever they are shared over.

    Args:
        question: What is opened.
        reading: The levels of every state that was read.
        credits: The credit of every segment.
        writes: The part of it that the block wrote.

    Raises:
        ArgumentError: If nothing can be opened, a row explains no tokens, or the result
            would be too large to hold.
    """
    for target in question.rows.targets:
        if not target.of_tokens:
            raise ArgumentError(
                f"{target.text!r} cannot be opened by {question.by}: only levels of "
                "tokens can. Use `sublayer`."
            )
    opened, _ = _opened(question)
    _check_size(question, opened)
    most = max(_row_bytes(question, opening) for opening in opened)
    step = max(1, question.memory_budget // most)
    if step >= len(credits):
        return _shared(question, reading, credits, writes)
    return Components.joined(
        [
            _shared(some, reading.at(rows), credits[rows], writes[rows])
            for rows, some in question.split(step)
        ]
    )


def _shared(
    question: Question,
    reading: PathReading,
    credits: Float[np.ndarray, "rows segments"],
    writes: Float[np.ndarray, "rows segments"],
) -> Components:
    """The shares of rows that are taken together."""
    opened, reasons = _opened(question)
    table = Table(question, credits)
    for some in _batches(question, opened):
        found = Strokes.of(question, some, reading).opened()
        for opening, each in zip(some, found, strict=True):
            table.put(opening.segment, each)
    if question.path.lens is not None:
        table.put_translations(credits - writes)
    return table.record(reasons)


def _opened(question: Question) -> tuple[list[Opening], dict[int, str]]:
    """Which segments are opened, and why others are not."""
    if question.directions is None:
        return openings(question.path, question.by)
    return directed(question.path, question.directions), {}


def _row_bytes(question: Question, opening: Opening) -> int:
    """About what one row takes while one segment is opened."""
    vectors = _COPIES * question.readout.d_model * len(opening.strokes)
    return 8 * (vectors + _PART_COPIES * opening.n_parts(question.by))


def _check_size(question: Question, opened: list[Opening]) -> None:
    """Refuse a result that is too large to hold.

    Raises:
        ArgumentError: If it is.
    """
    n_rows, top = len(question.rows.targets), question.top
    every = [opening.n_parts(question.by) for opening in opened]
    kept = sum(n if top is None else min(n, top) for n in every)
    if question.by == "source":
        kept += len(opened) * len(question.path.trace.token_ids)
    needed, limit = 8 * n_rows * kept, _RESULT_BUDGETS * question.memory_budget
    if needed <= limit:
        return
    what = "all parts" if top is None else f"the {top} largest parts of each segment"
    advice = "keep the largest with `top`, or " if top is None else ""
    raise ArgumentError(
        f"For {n_rows:,} rows {what} by {question.by} are {needed / 2**30:.1f} GiB, "
        f"more than the {limit / 2**30:.1f} GiB that results may take: {advice}explain "
        "fewer positions at a time (`memory_budget` moves the limit)."
    )


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
    for _, group in groupby(opened, lambda opening: len(opening.strokes)):
        some: list[Opening] = []
        held = 0
        for opening in group:
            needed = n_rows * _row_bytes(question, opening)
            if some and held + needed > question.memory_budget:
                yield some
                some, held = [], 0
            some.append(opening)
            held += needed
        yield some
