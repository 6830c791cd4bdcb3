"""What charts call tokens and layers, and what they say of how a picture was made."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool

from ...records import Attribution, Segment, Subject, Target
from ..text import UNIT_WORDS, format_credit, model_name
from ..visible import marked, visible

SHOWN = 18
"""Characters of a token's text that a chart shows."""

ODD_SIGN = "\N{MULTIPLICATION SIGN}"
"""Marks a cell that is not a number to rely on."""


def distinct(labels: Iterable[str]) -> list[str]:
    """The labels, with a number behind those that were there before.

    A chart has one place for each label: two rows with the same would fall together.

    Example:
        >>> distinct(["5 a", "5 a", "6 a"])
        ['5 a', '5 a (2)', '6 a']
    """
    seen: Counter[str] = Counter()
    found: list[str] = []
    for label in labels:
        seen[label] += 1
        unique = f"{label} ({seen[label]})" if seen[label] > 1 else label
        found.append(unique)
    return found


_SIGNS = str.maketrans({"␣": "·", "↵": "\\n", "⇥": "\\t"})


def shown(text: str, width: int = SHOWN) -> str:
    r"""A token's text in signs that every typeface has: spaces as dots.

    Example:
        >>> shown(" Paris"), shown("\n")
        ('·Paris', '\\n')
    """
    return marked(text, width).translate(_SIGNS)


def token_labels(texts: Sequence[str]) -> list[str]:
    """Every token of a text: its place, then what it says."""
    return distinct(f"{i} {shown(text)}" for i, text in enumerate(texts))


def row_labels(result: Attribution | Subject) -> list[str]:
    """Every row: the place of the predicted token, then the target.

    Rows that a flag marks as a whole end in "!".
    """
    marked = {flag.row for flag in result.flags if flag.point is None}
    pairs = zip(result.positions.tolist(), result.targets, strict=True)
    return distinct(
        f"{position} {shown(target.name)}{' !' * (row in marked)}"
        for row, (position, target) in enumerate(pairs)
    )


def named(target: Target) -> str:
    """A target for a title."""
    return f"'{shown(target.name, 40)}'" if target.of_tokens else visible(target.name)


def segment_label(segment: Segment) -> str:
    """A step of the path, in a few characters.

    Example:
        >>> from iglens.records import block_segment
        >>> [segment_label(block_segment(after, 4, ())) for after in (3, 0)]
        ['4', '1-4']
    """
    if segment.layer == 0:
        return "embedding"
    if segment.is_part:
        return visible(f"{segment.layer} {segment.part}")
    if segment.after is None:
        return f"→ {segment.layer}"
    single = segment.after == segment.layer - 1
    return str(segment.layer) if single else f"{segment.after + 1}-{segment.layer}"


def segment_labels(segments: Sequence[Segment]) -> list[str]:
    """Every step of the path."""
    return distinct(map(segment_label, segments))


def point_labels(result: Attribution) -> list[str]:
    """Every state on the path: the baseline, then where each step ends."""
    return distinct([start_label(result), *segment_labels(result.segments)])


def start_label(result: Attribution) -> str:
    """The first point."""
    return visible(f"start: {result.baseline_kind}")


def method_words(result: Attribution) -> str:
    """Model, unit, baseline, path, lens and estimator, in one line."""
    model, n = result.provenance.model, len(result.segments)
    steps = f"path through {n} steps over {model.n_layers} layers"
    if n == model.n_layers:
        steps = f"path through all {n} layers"
    return " · ".join(
        [
            visible(model_name(model.id)),
            UNIT_WORDS.get(result.unit, result.unit),
            visible(f"{result.baseline_kind} baseline"),
            steps,
            visible(f"{result.lens} lens"),
            visible(f"{result.estimator} estimator"),
        ]
    )


def odd_cells(result: Attribution) -> dict[tuple[int, int], str]:
    """Why credits are not to be relied on, by row and segment.

    A flag of a point is told of the credit that ends there; a credit that is no number
    is always told.
    """
    found = _each(
        ~np.isfinite(result.credits), "not a finite number: a level next to it is none"
    )
    for flag in result.flags:
        if flag.point is not None and flag.point > 0:
            cell = flag.row, flag.point - 1
            found[cell] = f"{flag.kind.replace('_', ' ')}: {visible(flag.detail)}"
    return found


def _each(where: Bool[np.ndarray, "..."], reason: str) -> dict[tuple[int, int], str]:
    """One reason for every cell of some."""
    cells = np.argwhere(where).tolist()
    return dict.fromkeys(((row, at) for row, at in cells), reason)


def odd_levels(result: Attribution) -> dict[tuple[int, int], str]:
    """Why levels are not to be relied on, by row and point."""
    found = _each(~np.isfinite(result.levels), "not a finite number")
    for flag in result.flags:
        if flag.point is not None:
            cell = flag.row, flag.point
            found[cell] = f"{flag.kind.replace('_', ' ')}: {visible(flag.detail)}"
    return found


def unit_words(unit: str) -> str:
    """A unit, for an axis."""
    return visible(UNIT_WORDS.get(unit, unit))


def credit_words(value: float, unit: str) -> str:
    """A signed credit; one digit of what would round to zero.

    Example:
        >>> credit_words(0.25, "probability"), credit_words(-2e-7, "probability")
        ('+0.250', '-2e-07')
    """
    told = format_credit(value, unit)
    if not np.isfinite(value) or not value or float(told):
        return told
    return f"{value:+.0e}"


def finite(value: float) -> float | None:
    """The number, or None for what JSON has no word for."""
    return float(value) if np.isfinite(value) else None
