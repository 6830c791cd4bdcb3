"""The outside of pages without scripts: head, style, and a policy that allows nothing.

Such a page follows the reader's own choice of light or dark. Its pictures are images,
so that no text in them can become markup, and its policy allows no script at all.
"""

from functools import cache
from html import escape
from importlib.resources import files

from .visible import visible

POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'"
)
"""No script, no request; pictures are in the page itself."""


def shell(title: str, model: str, header: str, main: str) -> str:
    """A whole page.

    Args:
        title: Its headline, as text.
        model: What stands beside the brand, as text.
        header: What follows the headline, as HTML.
        main: The rest, as HTML.
    """
    name = escape(visible(title))
    beside = f'<span class="model">{escape(visible(model))}</span>' if model else ""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en" data-theme="auto"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{name} · iglens</title>",
            f"<style>{_style()}</style></head><body>",
            f'<header><div class="top"><span class="brand">iglens</span>{beside}</div>',
            f"<h1>{name}</h1>",
            f"{header}</header>",
            f"<main>{main}</main>",
            "</body></html>",
            "",
        ]
    )


@cache
def _style() -> str:
    """The look of all pages, and what those without scripts have besides."""
    folder = files("iglens.report") / "assets"
    names = ("report.css", "sheet.css")
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)
