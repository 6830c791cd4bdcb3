"""The pages of the server: the form, a result with the form above it, the API."""

import json
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from html import escape
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, FastAPI, Path
from fastapi.responses import HTMLResponse, PlainTextResponse, Response

from ..report.page.document import asset, bundle, page_parts, safe
from ..report.text import model_name
from ..report.visible import marked
from .api import permalink
from .examples import EXAMPLES, Example
from .form import EXAMPLE, form
from .formats import all_formats
from .reference import reference
from .served import Served
from .shelf import Kept, Shelf

_INTRO = """<h1>At which layer does a word become readable?</h1>
<p class="lead">Type a text. The model goes on with it, and for every word it adds you
see between which of its layers that word's probability rose: numbers that add up
exactly, checked against the model itself.</p>"""

_LOST = """<h1>This result is not kept any more</h1>
<p class="lead">If the whole link was opened, the question in it is asked again now;
else type it below.</p>"""

_FOREVER = {"cache-control": "public, max-age=31536000, immutable"}


@dataclass(frozen=True)
class Asset:
    """A file that pages load.

    Attributes:
        text: What is in it.
        media: What it is.
    """

    text: str
    media: str


@cache
def assets() -> dict[str, Asset]:
    """Every file that pages load, by its name."""
    script, style = "text/javascript", "text/css"
    return {
        "vega.js": Asset(bundle(), script),
        "report.js": Asset(asset("report.js"), script),
        "serve.js": Asset(own("serve.js"), script),
        "report.css": Asset(asset("report.css"), style),
        "serve.css": Asset(own("serve.css"), style),
    }


@cache
def own(name: str) -> str:
    """A file that lies beside the code of the server."""
    return (files("iglens.serve") / "assets" / name).read_text(encoding="utf-8")


def page_routes(served: Served, shelf: Shelf, app: FastAPI) -> APIRouter:
    """What the server shows to people."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    def home() -> HTMLResponse:
        """The empty form."""
        return HTMLResponse(_page(served, shelf, None, _INTRO))

    @router.get("/r/{name}")
    def result(name: Annotated[str, Path(max_length=64)]) -> HTMLResponse:
        """A result, or the form that asks for it again."""
        kept = shelf.get(name)
        if kept is None:
            return HTMLResponse(_page(served, shelf, None, _LOST), 404)
        return HTMLResponse(_page(served, shelf, kept, ""))

    @router.get("/docs")
    def docs() -> HTMLResponse:
        """The API, described by its own schema."""
        body = reference(app.openapi())
        return HTMLResponse(_document(f"API · {_name(served)}", body, []))

    @router.get("/assets/{name}")
    def file(name: str) -> Response:
        """A script or a style sheet."""
        found = assets().get(name)
        if found is None:
            return PlainTextResponse("No such file.", 404)
        return Response(found.text, media_type=found.media, headers=_FOREVER)

    @router.get("/favicon.ico")
    def icon() -> Response:
        """None; browsers ask all the same."""
        return Response(status_code=204)

    return router


def _name(served: Served) -> str:
    """The model's name, for titles."""
    return safe(model_name(served.face.model.id))


def _examples(served: Served) -> str:
    """Questions to try, for an empty page."""
    known = [one for one in EXAMPLES if not one.chat or served.face.chat]
    buttons = "".join(
        f'<li><button type="button" class="try" data-question="{escape(_json(one))}">'
        f"{safe(one.text)}<span>{safe(one.shows)}</span></button></li>"
        for one in known
    )
    return f'<h2>Or try one of these</h2><ul class="tries">{buttons}</ul>'


def _json(example: Example) -> str:
    """What the form is filled with."""
    return json.dumps({"prompt": example.text, **example.fields})


def _page(served: Served, shelf: Shelf, kept: Kept | None, intro: str) -> str:
    """The form, with a result below it if there is one."""
    asked, text = (None, EXAMPLE) if kept is None else (kept.asked, kept.text)
    body = own("page.html").format(
        model=_name(served),
        intro=intro,
        form=form(served, asked, text),
        found=_examples(served) if kept is None else _found(kept),
        history=_history(shelf, kept),
    )
    drawn = ["vega.js", "report.js"]
    return _document(_name(served), body, [] if kept is None else drawn)


def _document(title: str, body: str, scripts: list[str]) -> str:
    """A whole page; its scripts and styles are files of this server."""
    pieces = [
        "<!doctype html>",
        '<html lang="en" data-theme="auto"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Where did this token come from? {title} · iglens</title>",
        *(f'<link rel="stylesheet" href="{_at(n)}">' for n in _STYLES),
        f'<script src="{_at("serve.js")}"></script></head><body>',
        body,
        *(f'<script src="{_at(name)}"></script>' for name in scripts),
        "</body></html>",
    ]
    return "\n".join(pieces) + "\n"


_STYLES = ("report.css", "serve.css")


@cache
def _at(name: str) -> str:
    """Where a file is; another version of it is elsewhere, so that none grows old."""
    digest = sha256(assets()[name].text.encode()).hexdigest()[:12]
    return f"/assets/{name}?v={digest}"


def _found(kept: Kept) -> str:
    """A result as the report shows it, and where to get it."""
    shown = page_parts(kept.result)
    saved = "".join(
        f'<li><a href="/api/results/{kept.id}?format={name[1:]}" title="{safe(what)}" '
        f"download>{name[1:]}</a></li>"
        for name, what in all_formats().items()
    )
    return (
        f'<div class="found" data-code="{kept.code}"><div class="head">{shown.head}'
        f'</div><ul class="get" aria-label="Save this result"><li>Save as</li>{saved}'
        '<li class="push"></li><li><button id="link" type="button">Copy link</button>'
        f"</li></ul>{shown.sections}</div>{shown.data}"
    )


def _history(shelf: Shelf, current: Kept | None) -> str:
    """The results that are remembered, as links."""
    known = [kept for _, kept in shelf.newest()]
    if not known:
        return '<p class="hint">Answers appear here; the newest stay.</p>'
    items = "".join(f"<li>{_entry(kept, kept is current)}</li>" for kept in known)
    forget = '<button id="forget" type="button">Forget all</button>'
    return f"<ol>{items}</ol>{forget}"


def _entry(kept: Kept, current: bool) -> str:
    """One of them."""
    result = kept.result
    here = ' aria-current="page"' if current else ""
    names = ", ".join(f"“{_word(target.name)}”" for target in result.targets[:3])
    more = f" and {result.n_rows - 3} more" if result.n_rows > 3 else ""
    return (
        f'<a href="{escape(permalink(kept))}"{here}><bdi>{safe(_cut(kept.text))}</bdi>'
        f'</a><p class="hint"><bdi>{safe(_cut(names, 60))}</bdi>{more}, by '
        f"{safe(kept.again.by)}</p>"
    )


def _word(name: str) -> str:
    """A target in a list: without spaces around it, unless it is nothing else."""
    return name.strip() or marked(name, 12)


def _cut(text: str, width: int = 80) -> str:
    """The end of a text, where what is explained begins."""
    line = " ".join(text.split())
    return line if len(line) <= width else f"…{line[-width:]}"
