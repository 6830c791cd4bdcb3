"""A result as a document: the page, its text in Markdown, and pictures."""

from collections.abc import Callable
from functools import partial

from ..records import Attribution

DOCUMENTS: dict[str, str] = {
    ".html": "interactive page, complete in itself",
    ".md": "text and table",
    ".svg": "chart, for papers and pages",
    ".png": "chart, in pixels",
    ".pdf": "chart, for papers",
}
"""Every extension a result can be shown in, and what it is for."""


PICTURES = (".svg", ".png", ".pdf")
"""Those of them that are one chart."""


def writers(
    kind: str | None = None, row: int = 0, theme: str = "light"
) -> dict[str, Callable[[Attribution], bytes]]:
    """What makes the bytes of each.

    Args:
        kind: Name of the chart in a picture; None for the natural one.
        row: The row it is of, where it is of one.
        theme: "light" or "dark", for pictures.
    """
    drawn = {
        extension: partial(
            _picture, extension=extension, kind=kind, row=row, theme=theme
        )
        for extension in PICTURES
    }
    return {".html": _page, ".md": _markdown, **drawn}


def _page(result: Attribution) -> bytes:
    """The report."""
    from .page import html_page

    return html_page(result).encode()


def _markdown(result: Attribution) -> bytes:
    """The text."""
    from .markdown import markdown_page

    return markdown_page(result).encode()


def _picture(
    result: Attribution, *, extension: str, kind: str | None, row: int, theme: str
) -> bytes:
    """One chart."""
    from .charts import attribution_figure
    from .charts.files import picture_bytes

    return picture_bytes(
        attribution_figure(result, kind, row=row, theme=theme), extension
    )
