"""A result as Markdown: the answer, how it was made, and the map as a table."""

import numpy as np

from ..records import Attribution
from .charts.words import (
    method_words,
    odd_cells,
    row_labels,
    segment_labels,
    start_label,
)
from .text import credit_of, format_level, sentences, verification
from .through_lens import lens_sentences
from .visible import visible

COLUMNS = 12
"""Tokens side by side; more go into further tables."""


def markdown_page(result: Attribution) -> str:
    """The whole document."""
    prompt = result.provenance.prompt
    blocks = [
        "# Where did this token come from?",
        *([f"> {_safe(visible(prompt))}"] if prompt else []),
        "\n".join(f"- {_safe(line.strip())}" for line in sentences(result)),
        _safe(method_words(result)),
        *_tables(result),
        "\n".join(f"- {_safe(line)}" for line in lens_sentences(result)),
        _safe(" ".join(verification(result).split())),
        "\n".join(f"- ⚠ {_safe(visible(text))}" for text in result.warnings),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _tables(result: Attribution) -> list[str]:
    """Layers down, tokens across, so many at a time."""
    return [
        _table(result, range(at, min(at + COLUMNS, result.n_rows)))
        for at in range(0, result.n_rows, COLUMNS)
    ]


def _table(result: Attribution, rows: range) -> str:
    """Some rows: the level they start from, every credit, the level they end at."""
    labels, odd = row_labels(result), odd_cells(result)
    units, levels = result.units, result.levels
    lines = [["layer", *(labels[row] for row in rows)]]
    lines.append(
        [start_label(result), *(format_level(levels[r, 0], units[r]) for r in rows)]
    )
    for at, name in enumerate(segment_labels(result.segments)):
        cells = []
        for row in rows:
            credit = result.credits[row, at]
            text = credit_of(result, row, at) if np.isfinite(credit) else "nan"
            cells.append(f"{text} ⚠" if (row, at) in odd else text)
        lines.append([name, *cells])
    lines.append(["= readout", *(format_level(levels[r, -1], units[r]) for r in rows)])
    shown = ["| " + " | ".join(map(_safe, line)) + " |" for line in lines]
    rule = "|" + " --: |" * (len(rows) + 1)
    return "\n".join([shown[0], rule, *shown[1:]])


def _safe(text: str) -> str:
    """The text without what Markdown would read as its own."""
    for sign in "\\`*_|<[&":
        text = text.replace(sign, f"\\{sign}")
    return text
