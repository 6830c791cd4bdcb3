"""The page: its text is written by hand, its tables are put in by the run."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from . import (
    causes,
    completeness,
    conductance,
    cost,
    direct_logit,
    double_norm,
    lenses,
    monotone,
)
from .section import Section, Size
from .subjects import Subject

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reproduction.md"

SECTIONS: tuple[Section, ...] = (
    completeness.SECTION,
    double_norm.SECTION,
    conductance.SECTION,
    direct_logit.SECTION,
    monotone.SECTION,
    lenses.QUALITY,
    lenses.CREDITS,
    cost.SECTION,
    causes.SECTION,
)
"""In the order of the page."""


def models(subjects: Sequence[Subject]) -> str:
    """What was measured on, and with what."""
    lines = [
        "| model | class | layers | prompts asked | answered | taken |",
        "|---|---|---|---|---|---|",
    ]
    for each in subjects:
        cells = (
            each.name,
            f"`{type(each.decoder.model).__name__}`",
            str(each.n_layers),
            str(each.asked),
            str(each.known),
            str(len(each.facts)),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def made(size: Size) -> str:
    """Seed and versions."""
    names = ("iglens", "torch", "transformers")
    return f"Seed {size.seed}; " + ", ".join(f"{n} {version(n)}" for n in names) + "."


def filled(text: str, name: str, content: str) -> str:
    """A page with one block replaced.

    Raises:
        ValueError: If it has no such block.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"the page has no block {name!r}")
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"
