"""The API's own description as a page, without anything from elsewhere."""

import json
import re
from typing import Any

from ..report.page.document import safe

_EXAMPLE = {"prompt": "The capital of France is", "target": " Paris", "by": "sublayer"}


def reference(schema: dict[str, Any]) -> str:
    """The page's body.

    Args:
        schema: OpenAPI, as the server publishes it.
    """
    calls = [
        _call(verb, path, call)
        for path, verbs in schema["paths"].items()
        for verb, call in verbs.items()
    ]
    example = json.dumps(_EXAMPLE)
    return (
        '<header class="bar"><a class="brand" href="/">iglens</a><span class="model">'
        'API</span><button id="theme" type="button" aria-label="Switch between light '
        'and dark">◐</button></header><main class="api"><h1>Ask from a program</h1>'
        '<p class="lead">One address answers questions: '
        "<code>POST /api/explain</code>. The words are those of "
        "<code>iglens.explain</code>; the answer is iglens's "
        'JSON form. The machine-readable description is <a href="/api/openapi.json">'
        "/api/openapi.json</a>.</p>"
        '<section aria-label="Example"><pre tabindex="0">curl -s ADDRESS/api/explain '
        "-H 'Content-Type: application/json' \\\n  -d '"
        f"{safe(example)}'</pre></section>"
        f"{''.join(calls)}"
        f"<section><h2>A question</h2>{_fields(schema)}</section></main>"
    )


def _call(verb: str, path: str, call: dict[str, Any]) -> str:
    """One address and what it does."""
    told = "".join(
        f"<p>{_prose(part)}</p>" for part in call.get("description", "").split("\n\n")
    )
    rows = "".join(
        f"<tr><th scope='row'><code>{safe(p['name'])}</code></th>"
        f"<td>{_prose(p.get('description', ''))}</td></tr>"
        for p in call.get("parameters", [])
    )
    table = f"<table><tbody>{rows}</tbody></table>" if rows else ""
    return (
        f'<section><h2><span class="verb">{safe(verb.upper())}</span> '
        f"<code>{safe(path)}</code></h2>{told}{table}</section>"
    )


def _fields(schema: dict[str, Any]) -> str:
    """The fields of a question."""
    known = schema["components"]["schemas"]["Question"]
    rows = "".join(
        f'<tr><th scope="row"><code>{safe(name)}</code></th>'
        f"<td>{_prose(field.get('description', ''))}</td>"
        f"<td>{_usual(field, name in known['required'])}</td></tr>"
        for name, field in known["properties"].items()
    )
    names = ("field", "what it takes", "unless given")
    heads = "".join(f'<th scope="col">{name}</th>' for name in names)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"


def _usual(field: dict[str, Any], needed: bool) -> str:
    """What a field is if it is not given."""
    if "default" not in field:  # as the schema leaves null out
        return "needed" if needed else "none"
    return f"<code>{safe(json.dumps(field['default']))}</code>"


def _prose(text: str) -> str:
    """A text with its backticks as code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", safe(" ".join(text.split())))
