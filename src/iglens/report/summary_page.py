"""A summary as a page, as Markdown and as pictures."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from ..records.summary import Summary
from . import summary as text
from .documents import PICTURES
from .tables import html_page, html_table, markdown_table, safe_html, safe_markdown
from .visible import visible

Lines = Sequence[Sequence[str]]


def tables(summary: Summary) -> Iterator[tuple[str, Sequence[str], Lines]]:
    """Title, heads and lines of every table."""
    for group in summary.whole:
        unit = f" ({visible(group.unit)})" if len(summary.whole) > 1 else ""
        layers = [cells for cells, _ in text.layer_rows(summary, group)]
        yield f"What each layer added, on average{unit}", text.LAYER_HEADS, layers
        depths = [*text.depth_rows(group)]
        yield f"At which depth tokens became readable{unit}", text.DEPTH_HEADS, depths
    for one in summary.slices:
        title = f"By {visible(one.column)}"
        yield title, text.SLICE_HEADS, [*text.slice_rows(one)]


def kinds(summary: Summary) -> Iterator[str]:
    """Names of the charts that there is something for."""
    if summary.whole:
        yield from ("credits", "levels", "onsets")
    if summary.whole and summary.slices:
        yield "slices"
    if summary.whole and summary.null is not None:
        yield "null"


def markdown(summary: Summary) -> str:
    """The text and its tables."""
    pieces = ["# A run, summed up", safe_markdown(text.heading(summary))]
    pieces += [safe_markdown(line) for line in text.sentences(summary)]
    for title, heads, lines in tables(summary):
        pieces += [f"## {safe_markdown(title)}"]
        pieces += [markdown_table(heads, lines, {heads[0], "that is, where"})]
    for one in summary.slices:
        pieces += [safe_markdown(text.contrast_line(c).strip()) for c in one.contrasts]
    pieces += [safe_markdown(line) for line in text.footer(summary)]
    pieces += [f"Note: {safe_markdown(note)}" for note in summary.notes]
    return "\n\n".join(pieces) + "\n"


def page(summary: Summary) -> str:
    """A page that loads nothing: sentences, charts as drawings, and all numbers."""
    first, *others = text.sentences(summary)
    pieces = [f"<p>{safe_html(text.heading(summary))}</p>"]
    pieces += [f"<p><strong>{safe_html(first)}</strong></p>"]
    pieces += [f"<p>{safe_html(line)}</p>" for line in others]
    pieces += [f"<p>⚠ {safe_html(note)}</p>" for note in summary.notes]
    pieces += [f"<figure>{_drawing(summary, kind)}</figure>" for kind in kinds(summary)]
    pieces += [html_table(*one) for one in tables(summary)]
    for one in summary.slices:
        pieces += [f"<p>{safe_html(text.contrast_line(c))}</p>" for c in one.contrasts]
    pieces += [f"<p>{safe_html(line)}</p>" for line in text.footer(summary)]
    return html_page("Where did these tokens become readable?", pieces)


def _drawing(summary: Summary, kind: str) -> str:
    """A chart as SVG."""
    from .charts.files import picture_bytes

    return picture_bytes(summary.figure(kind), ".svg").decode()


def documents(figure: str | None = None) -> dict[str, Callable[[Summary], bytes]]:
    """What makes the bytes of pages and pictures, by extension.

    Args:
        figure: Name of the chart in pictures; None for the natural one.
    """
    drawn = {one: partial(_picture, extension=one, kind=figure) for one in PICTURES}
    return {
        ".html": lambda summary: page(summary).encode(),
        ".md": lambda summary: markdown(summary).encode(),
        **drawn,
    }


def _picture(summary: Summary, *, extension: str, kind: str | None) -> bytes:
    """One chart."""
    from .charts.files import picture_bytes

    return picture_bytes(summary.figure(kind), extension)


DOCUMENTS = documents()
"""The same with the natural chart."""
