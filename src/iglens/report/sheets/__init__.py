"""Pages without scripts: of comparisons, differences, audits and gate paths."""

from collections.abc import Callable
from typing import TypeVar

from ...records.audit import Audit
from ...records.comparison import Comparison
from ...records.difference import Difference
from ...records.effects import Effects
from .audit import audit_sheet
from .comparison import comparison_sheet
from .difference import difference_sheet
from .effects import effects_sheet
from .html import html_page
from .markdown import markdown_page
from .sheet import Sheet

Record = TypeVar("Record")


def pages(make: Callable[[Record], Sheet]) -> dict[str, Callable[[Record], str]]:
    """What makes the pages of a record, by extension.

    Args:
        make: Says what they say.
    """
    return {
        ".md": lambda record: markdown_page(make(record)),
        ".html": lambda record: html_page(make(record)),
    }


COMPARISON: dict[str, Callable[[Comparison], str]] = pages(comparison_sheet)
DIFFERENCE: dict[str, Callable[[Difference], str]] = pages(difference_sheet)
AUDIT: dict[str, Callable[[Audit], str]] = pages(audit_sheet)
EFFECTS: dict[str, Callable[[Effects], str]] = pages(effects_sheet)

__all__ = ["AUDIT", "COMPARISON", "DIFFERENCE", "EFFECTS", "pages"]
