"""Plain tables and pages, in Markdown and in HTML that loads nothing."""

from collections.abc import Iterable, Sequence
from html import escape

from .shell import shell
from .visible import visible


def markdown_table(
    heads: Sequence[str], lines: Iterable[Sequence[str]], left: Iterable[str] = ()
) -> str:
    """A table: numbers right, and the columns that are named left."""
    rule = ["---" if head in set(left) else "--:" for head in heads]
    rows = [list(heads), rule]
    rows += [[safe_markdown(cell) for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def safe_markdown(text: str) -> str:
    """The text without what Markdown would read as its own."""
    for sign in "\\`*_|<[":
        text = text.replace(sign, f"\\{sign}")
    return text


def html_table(
    caption: str, heads: Sequence[str], lines: Iterable[Sequence[str]]
) -> str:
    """One table, its first column being its lines' names."""
    titles = "".join(f'<th scope="col">{safe_html(head)}</th>' for head in heads)
    rows = [
        f'<tr><th scope="row">{safe_html(line[0])}</th>'
        + "".join(f"<td>{safe_html(cell)}</td>" for cell in line[1:])
        + "</tr>"
        for line in lines
    ]
    return (
        f"<table><caption>{safe_html(caption)}</caption><thead><tr>{titles}</tr>"
        f"</thead><tbody>{''.join(rows)}</tbody></table>"
    )


def html_page(title: str, pieces: Iterable[str]) -> str:
    """A page of pieces that are HTML already, under a title."""
    return shell(title, "", "", "\n".join(pieces))


def safe_html(text: str) -> str:
    """The text as it may stand between tags."""
    return escape(visible(text))
