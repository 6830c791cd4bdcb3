"""A sheet as a page of HTML: no script, no request, charts as images."""

from base64 import b64encode
from html import escape

from ..page.checks import Check
from ..shell import shell
from ..visible import visible
from .sheet import Drawing, Numbers, Sheet

FONT = "'Liberation Sans', Arial, Helvetica, sans-serif"
"""Of charts on pages: an image cannot grow with its letters, so they have to be as wide
as those that it was laid out with."""

PADDING = 24
"""Around charts on pages, for letters that are wider all the same."""


def html_page(sheet: Sheet) -> str:
    """The whole page."""
    first, *others = sheet.says or ("",)
    header = [
        f'<p class="answer">{_safe(first)}</p>',
        *(f'<p class="says">{_safe(line)}</p>' for line in others),
        f'<ul class="badges" aria-label="What was verified">{_badges(sheet)}</ul>',
        _warnings(sheet),
    ]
    shut = [one for one in sheet.numbers if one.shut]
    main = [
        *(_section(one.title, _picture(one)) for one in sheet.drawings),
        *(_section(one.title, _box(one)) for one in sheet.numbers if not one.shut),
        *([_section("Every number", "".join(map(_folded, shut)))] if shut else []),
        _section("How to read this", _reading(sheet)),
        _section("Where the numbers come from", _pairs(sheet)),
    ]
    return shell(sheet.question, sheet.model, "\n".join(header), "\n".join(main))


def _safe(text: str) -> str:
    """The text as it may stand between tags and in quotes."""
    return escape(visible(text))


def _section(title: str, inside: str) -> str:
    """A box with a heading."""
    return f"<section><h2>{_safe(title)}</h2>{inside}</section>"


def _picture(drawing: Drawing) -> str:
    """The chart as an image, light or dark as the reader has it, with its words."""
    from ..charts.files import picture_bytes

    charts = {theme: drawing.chart(theme) for theme in ("light", "dark")}
    for chart in charts.values():
        chart.config.font, chart.config.padding = FONT, PADDING
    links = {
        theme: "data:image/svg+xml;base64,"
        + b64encode(picture_bytes(chart, ".svg")).decode()
        for theme, chart in charts.items()
    }
    words = _safe(str(charts["light"].description))
    return (
        f'<div class="drawn" tabindex="0" role="group" aria-label="Chart: '
        f'{_safe(drawing.title)}"><picture>'
        f'<source media="screen and (prefers-color-scheme: dark)" '
        f'srcset="{links["dark"]}">'
        f'<img alt="{words}" src="{links["light"]}"></picture></div>'
    )


def _box(numbers: Numbers) -> str:
    """A table that scrolls by itself."""
    return (
        f'<div class="scroll" tabindex="0" role="region" '
        f'aria-label="{_safe(numbers.title)}">{_table(numbers)}</div>'
    )


def _folded(numbers: Numbers) -> str:
    """A long one, folded away."""
    title = _safe(numbers.title)
    return f"<details><summary>{title}</summary>{_box(numbers)}</details>"


def _table(numbers: Numbers) -> str:
    """The table itself."""
    words = [head in numbers.left for head in numbers.heads]
    left = [' class="left"' if word else "" for word in words]
    heads = "".join(
        f'<th scope="col"{css}>{_safe(head)}</th>'
        for head, css in zip(numbers.heads, left, strict=True)
    )
    lines = "".join(
        f'<tr><th scope="row">{_safe(first)}</th>'
        + "".join(
            f"<td{css}>{_safe(cell)}</td>"
            for cell, css in zip(cells, left[1:], strict=True)
        )
        + "</tr>"
        for first, *cells in numbers.lines
    )
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"


def _badges(sheet: Sheet) -> str:
    """What was checked, as small labels that say in words how it came out."""
    return "".join(map(_badge, sheet.checks))


def _badge(check: Check) -> str:
    """One of them."""
    state = {True: "ok", False: "bad", None: "note"}[check.passed]
    word = {True: "✓", False: "✗ failed:", None: ""}[check.passed]
    return (
        f'<li class="badge {state}" title="{_safe(check.meaning)}">'
        f"<b>{word} {_safe(check.name)}</b> {_safe(check.said)}</li>"
    )


def _warnings(sheet: Sheet) -> str:
    """Sentences that a reader must see."""
    lines = "".join(f"<li>{_safe(text)}</li>" for text in sheet.warnings)
    return f'<ul class="warnings">{lines}</ul>' if lines else ""


def _reading(sheet: Sheet) -> str:
    """Notes, what was checked in full, and the method card."""
    notes = "".join(f"<li>{_safe(line)}</li>" for line in sheet.reading)
    card = "".join(
        f"<div><dt>{_safe(name)}</dt><dd><b>{_safe(value)}</b> {_safe(why)}</dd></div>"
        for name, value, why in sheet.card
    )
    return f'<ul class="notes">{notes}</ul><dl class="card">{card}</dl>'


def _pairs(sheet: Sheet) -> str:
    """Names with their values."""
    pairs = "".join(
        f"<div><dt>{_safe(name)}</dt><dd>{_safe(value)}</dd></div>"
        for name, value in sheet.origin
    )
    return f'<dl class="origin">{pairs}</dl>'
