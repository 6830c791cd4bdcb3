"""A sheet as Markdown: its words and tables, without the charts."""

from collections.abc import Iterable

from ..page.checks import Check
from ..tables import markdown_table, safe_markdown
from ..visible import visible
from .sheet import Sheet

_STATES = {True: "", False: "FAILED: ", None: ""}


def markdown_page(sheet: Sheet) -> str:
    """The whole document."""
    blocks = [f"# {_safe(sheet.question)}", _safe(sheet.model)]
    blocks += map(_safe, sheet.says)
    blocks += [_list(f"⚠ {text}" for text in sheet.warnings)]
    for numbers in sheet.numbers:
        blocks += [f"## {_safe(numbers.title)}"]
        heads = [_safe(head) for head in numbers.heads]
        lines = [[visible(cell) for cell in line] for line in numbers.lines]
        blocks += [markdown_table(heads, lines, map(_safe, numbers.left))]
    blocks += ["## How to read this", _list(sheet.reading)]
    blocks += [_list(f"{name}: {value}. {why}" for name, value, why in sheet.card)]
    blocks += [_list(map(_checked, sheet.checks))]
    blocks += ["## Where the numbers come from"]
    blocks += [_list(f"{name}: {value}" for name, value in sheet.origin)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _checked(check: Check) -> str:
    """A check and how it came out."""
    return f"{_STATES[check.passed]}{check.name}: {check.said}. {check.meaning}"


def _list(lines: Iterable[str]) -> str:
    """One point a line."""
    return "\n".join(f"- {_safe(line)}" for line in lines)


def _safe(text: str) -> str:
    """The text without what does not print, and what Markdown would read as its own."""
    return safe_markdown(visible(" ".join(text.split())))
