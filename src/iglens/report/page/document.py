"""The page itself: markup, style, data and scripts in one file that loads nothing."""

import json
from base64 import b64encode
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from html import escape
from importlib.resources import files
from typing import Any

from ...records import Attribution
from ...records.answer import whole_answer
from ..answer import answer_sentence
from ..charts.words import method_words
from ..html import html_table
from ..text import model_name
from ..through_lens import lens_sentences
from ..visible import visible
from .checks import READING, Check, checks, method_card, provenance
from .payload import payload
from .templates import templates

_SNIPPET = "window.vegaEmbed = vegaEmbed;"
"""What the bundle hands to the page's own script."""


def html_page(result: Attribution) -> str:
    """A result as one page: it opens offline, prints, and can be used by keyboard.

    Every script on it is named by its hash in the page's own security policy, which
    allows no other and no request: text from a model could not run, nor call anybody,
    even if it became markup.
    """
    scripts = [bundle(), asset("report.js")]
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    model = safe(model_name(result.provenance.model.id))
    shown = page_parts(result)
    pieces = [
        "<!doctype html>",
        '<html lang="en" data-theme="auto"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Where did this token come from? {model} · iglens</title>",
        f"<style>{asset('report.css')}</style></head><body>",
        asset("top.html").format(model=model),
        f"{shown.head}</header>\n<main>\n{shown.sections}</main>",
        shown.data,
        *(f"<script>{script}</script>" for script in scripts),
        "</body></html>",
    ]
    return "\n".join(pieces) + "\n"


@dataclass(frozen=True)
class PageParts:
    """What a page says of one result, for pages that have other things on them too.

    Attributes:
        head: The headline, its answer, and what was verified.
        sections: The text, the charts and the small print.
        data: The element that `report.js` draws them from.
    """

    head: str
    sections: str
    data: str


def page_parts(result: Attribution) -> PageParts:
    """A result as markup, without scripts and style."""
    data = json_for_script({"data": payload(result), "specs": templates()})
    return PageParts(
        head=asset("head.html").format(
            overview=_overview(result),
            badges="".join(map(_badge, checks(result))),
            warnings=_warnings(result),
        ),
        sections=asset("report.html").format(
            method=safe(method_words(result)),
            card=_card(result),
            reading=safe(READING),
            provenance=_list(provenance(result)),
            table=html_table(result),
        ),
        data=f'<script type="application/json" id="data">{data}</script>',
    )


@cache
def bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, from what draws pictures too."""
    import altair
    import vl_convert

    version = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    return str(vl_convert.javascript_bundle(_SNIPPET, version))


@cache
def asset(name: str) -> str:
    """A file that lies beside the code."""
    return (files("iglens.report") / "assets" / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    """The hash by which a policy names a script."""
    return b64encode(sha256(script.encode()).digest()).decode()


def json_for_script(value: Any) -> str:
    r"""JSON that may stand in a script element, whatever its texts are.

    Example:
        >>> json_for_script(["</script>"])
        '["\\u003c/script\\u003e"]'
    """
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def safe(text: str) -> str:
    """The text as it may stand between tags and in quotes."""
    return escape(visible(text))


def _overview(result: Attribution) -> str:
    """What holds for all rows together, if there are several."""
    lines = lens_sentences(result)[:1]
    if (answer := whole_answer(result)) is not None:
        lines.append(answer_sentence(answer))
    if result.n_rows > 1:
        lines.append(f"{result.n_rows} tokens are explained here; pick one below.")
    return "".join(f"<p>{safe(line)}</p>" for line in lines)


def _badge(check: Check) -> str:
    """One check as a small label that says in words how it came out."""
    state = {True: "ok", False: "bad", None: "note"}[check.passed]
    word = {True: "✓", False: "✗ failed:", None: ""}[check.passed]
    return (
        f'<li class="badge {state}" title="{safe(check.meaning)}">'
        f"<b>{word} {safe(check.name)}</b> {safe(check.said)}</li>"
    )


def _warnings(result: Attribution) -> str:
    """Sentences that a reader must see."""
    lines = "".join(f"<li>{safe(text)}</li>" for text in result.warnings)
    return f'<ul class="warnings">{lines}</ul>' if lines else ""


def _card(result: Attribution) -> str:
    """The method card."""
    return "".join(
        f"<div><dt>{safe(name)}</dt><dd><b>{safe(value)}</b> {safe(why)}</dd></div>"
        for name, value, why in method_card(result)
    )


def _list(pairs: list[tuple[str, str]]) -> str:
    """Names with their values."""
    return "".join(
        f"<div><dt>{safe(name)}</dt><dd>{safe(value)}</dd></div>"
        for name, value in pairs
    )
