"""A small table for notebooks: layers down, tokens across.

Everything that comes from a model or a user is escaped, and characters that do not
print are spelled out, so that no token can restyle or reorder the page.
"""

from collections.abc import Iterable
from html import escape

import numpy as np

from ..records import Attribution, Target
from . import components
from .text import below, summary, verification
from .through_lens import lens_sentences
from .visible import visible

SHOWN_ROWS = 8
"""Rows shown side by side; more would not fit a notebook cell."""

TOLD = 60
"""Lines about what is inside layers; more would not fit either."""

# Blue and orange of the Okabe-Ito palette, which colour-blind readers can tell apart.
_GAIN, _LOSS = "0,114,178", "230,159,0"


def mime_bundle(attribution: Attribution) -> dict[str, str]:
    """What a notebook shows: the table, what is inside layers, and the same as text."""
    shown = html_table(attribution) + _inside(attribution)
    return {"text/plain": summary(attribution), "text/html": shown}


def html_table(attribution: Attribution) -> str:
    """The first rows of a result as one HTML fragment, without script or style sheet.

    Blue cells add to the target's level and orange ones take from it, as their signs
    say too; the strongest shade is the largest credit shown. A cell with a warning
    sign is flagged or not finite, and says why when pointed at.
    """
    shown = attribution.select(range(min(attribution.n_rows, SHOWN_ROWS)))
    notes = [_described(shown), *_hidden(attribution)]
    return "".join(
        [
            "<table>",
            f"<caption>{_safe(' '.join(notes))}</caption>",
            "<thead>",
            _line("layer", _heads(shown)),
            "</thead><tbody>",
            _line("baseline", _levels(shown, 0)),
            *_credit_lines(shown),
            _line("final", _levels(shown, len(shown.segments))),
            "</tbody></table>",
            *(f"<p>{_safe(line)}</p>" for line in lens_sentences(shown)),
            f"<p>{escape(visible(_one_line(verification(attribution))))}</p>",
            *(f"<p>⚠ {_safe(text)}</p>" for text in attribution.warnings),
        ]
    )


def _inside(attribution: Attribution) -> str:
    """The largest parts of layers, if they were asked for."""
    if attribution.components is None:
        return ""
    told = components.lines(attribution)
    more = [f"{len(told) - TOLD} lines more."] if len(told) > TOLD else []
    lines = "".join(f"<li>{_safe(line)}</li>" for line in [*told[:TOLD], *more])
    return (
        f"<details open><summary>Inside the layers</summary><ul>{lines}</ul></details>"
    )


def _one_line(text: str) -> str:
    """The text without its line ends."""
    return " ".join(text.split())


def _described(shown: Attribution) -> str:
    """What the numbers are, in one sentence."""
    return (
        f"Credit of each layer in {shown.unit}: model "
        f"{shown.provenance.model.id}, {shown.baseline_kind} baseline, "
        f"{shown.lens} lens, {shown.estimator} estimator."
    )


def _hidden(attribution: Attribution) -> list[str]:
    """What is left out, if anything is."""
    if attribution.n_rows <= SHOWN_ROWS:
        return []
    return [f"Showing the first {SHOWN_ROWS} of {attribution.n_rows} rows."]


def _line(head: str, cells: Iterable[str]) -> str:
    return f"<tr><th>{_safe(head)}</th>{''.join(cells)}</tr>"


def _heads(shown: Attribution) -> list[str]:
    """Target and position of every row."""
    pairs = zip(shown.targets, shown.positions.tolist(), strict=True)
    return [
        f"<th><bdi>{_safe(_name(target))}</bdi><br>at {position}"
        f"{_mark(_reason(shown, row, None))}</th>"
        for row, (target, position) in enumerate(pairs)
    ]


def _name(target: Target) -> str:
    """The target's text in quotes, which show where spaces are."""
    return f'"{target.name}"' if target.of_tokens else target.name


def _levels(shown: Attribution, point: int) -> list[str]:
    """One level per row, uncoloured."""
    return [
        f"<td>{value:.4g}{_mark(_odd(shown, row, point, value))}</td>"
        for row, value in enumerate(shown.levels[:, point].tolist())
    ]


def _credit_lines(shown: Attribution) -> list[str]:
    """One line per segment."""
    sizes = np.abs(shown.credits[np.isfinite(shown.credits)])
    scale = float(sizes.max(initial=0.0)) or 1.0
    return [
        _line(
            segment.label,
            (
                f"<td>{_safe(below(shown))}</td>"
                if shown.unsigned[row, place]
                else _credit(value, scale, _odd(shown, row, place + 1, value))
                for row, value in enumerate(shown.credits[:, place].tolist())
            ),
        )
        for place, segment in enumerate(shown.segments)
    ]


def _credit(value: float, scale: float, odd: str | None) -> str:
    """A signed number on its colour, or on none if it is not finite."""
    if not np.isfinite(value):
        return f"<td>{value:+}{_mark(odd)}</td>"
    colour, alpha = (_GAIN if value > 0 else _LOSS), 0.7 * abs(value) / scale
    style = f"background:rgba({colour},{alpha:.3f})" if value else ""
    return f'<td style="{style}">{value:+.4g}{_mark(odd)}</td>'


def _odd(shown: Attribution, row: int, point: int, value: float) -> str | None:
    """Why a number is not one to rely on, or None."""
    reason = _reason(shown, row, point)
    return reason or (None if np.isfinite(value) else "not a finite number")


def _reason(shown: Attribution, row: int, point: int | None) -> str | None:
    """What the flags say about a cell, or None."""
    details = [f.detail for f in shown.flags if (f.row, f.point) == (row, point)]
    return " ".join(details) or None


def _mark(reason: str | None) -> str:
    """A warning sign that explains itself, or nothing."""
    return f' <abbr title="{_safe(reason)}">⚠</abbr>' if reason else ""


def _safe(text: str) -> str:
    """The text as it may stand between tags and in quotes."""
    return escape(visible(text))
