"""Pages of comparisons, differences, audits and gates: whole, harmless, complete."""

import re
from base64 import b64decode
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
from factories import HOSTILE, make_attribution
from toys import tiny_decoder

import iglens
from iglens.auditing import audit
from iglens.records.difference import Difference
from iglens.report.documents import DOCUMENTS
from iglens.report.page.checks import Check
from iglens.report.sheets.audit import audit_sheet
from iglens.report.sheets.common import MOST_ROWS
from iglens.report.sheets.difference import PAIRED, difference_sheet
from iglens.report.sheets.effects import effects_sheet
from iglens.report.sheets.html import html_page
from iglens.report.sheets.markdown import markdown_page
from iglens.report.sheets.sheet import Numbers, Sheet
from iglens.report.tables import html_page as plain_page
from iglens.report.text import exact_credit, format_credit, format_level

IDS = [3, 1, 4, 1, 5]
NAMES = ("comparison", "pair", "audited", "gates")


@pytest.fixture(scope="module")
def records():
    """One of each, of the same tiny model."""
    decoder = tiny_decoder("llama")
    result = iglens.explain(decoder, IDS, max_new_tokens=2)
    other = iglens.explain_like(decoder, [2, 7, *IDS[2:]], result)
    texts = [IDS, [2, 7, 1]]
    return {
        "comparison": iglens.compare(decoder, IDS, n_steps=4),
        "pair": iglens.diff(result, other),
        "audited": audit(decoder, texts, target=[5, 9], gates=True, curves=True),
        "gates": iglens.gates(decoder, IDS, max_new_tokens=2),
    }


@pytest.fixture(scope="module")
def pages(records, tmp_path_factory):
    """Every page as text, by record and extension."""
    folder = tmp_path_factory.mktemp("pages")
    found = {}
    for name, record in records.items():
        for extension in (".html", ".md"):
            place = folder / f"{name}{extension}"
            record.save(place)
            found[name, extension] = place.read_text(encoding="utf-8")
    return found


class Reader(HTMLParser):
    """Refuses what is not closed, or could load or run anything."""

    def __init__(self, page):
        super().__init__()
        self.open, self.words, self.images = [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "iframe", "object", "link", "base", "form")
        for name, value in attrs:
            assert not name.startswith("on"), name
            if name in ("src", "srcset", "href", "action"):
                assert value.startswith("data:image/svg+xml;base64,")
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in ("meta", "img", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_record_can_be_shown_in_every_way(records, name, tmp_path):
    starts = {".html": b"<!doc", ".md": b"# ", ".svg": b"<svg", ".png": b"\x89PNG"}
    for extension in DOCUMENTS:
        place = tmp_path / f"x{extension}"
        records[name].save(place)
        assert place.read_bytes().startswith(starts.get(extension, b"%PDF"))
    records[name].save(tmp_path / "page", "html")
    one, other = (
        re.sub(r"base64,[^\"]+", "", (tmp_path / name).read_text())
        for name in ("page", "x.html")
    )
    assert one == other
    with pytest.raises(iglens.OutputError, match=r"\.gif.*\.html.*\.pdf"):
        records[name].save(tmp_path / "x.gif")


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_whole_and_its_policy_allows_nothing(pages, name):
    page = pages[name, ".html"]
    Reader(page)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "@import" not in page
    assert "url(" not in page


@pytest.mark.parametrize("name", NAMES)
def test_pictures_are_there_in_both_dresses_and_in_words(records, pages, name):
    page = pages[name, ".html"]
    found = Reader(page)
    assert found.images
    drawings = re.findall(r'(?:srcset|src)="data:image/svg\+xml;base64,([^"]+)"', page)
    assert len(drawings) == 2 * len(found.images)
    for dark, light in zip(drawings[::2], drawings[1::2], strict=True):
        one, other = (b64decode(text).decode() for text in (dark, light))
        assert "#14171c" in one
        assert "#ffffff" in other
        assert "Liberation Sans" in other
    natural = records[name].figure().to_dict()["description"]
    assert natural in [image["alt"] for image in found.images]


@pytest.mark.parametrize("extension", [".html", ".md"])
def test_pages_hold_every_number(records, pages, extension):
    text = {name: pages[name, extension] for name in NAMES}
    gates = records["gates"]
    for value in (*gates.effects.flat, *gates.ledger.flat):
        assert format_credit(value, gates.unit) in text["gates"]
    audited = records["audited"]
    for value in (*audited.effects.effects.mean(0), *audited.credits.mean(0)):
        assert format_credit(value, audited.unit) in text["audited"]
    pair = records["pair"]
    for side in (pair.a, pair.b, pair):
        for value in side.credits.flat:
            assert exact_credit(value, pair.unit) in text["pair"]
    comparison = records["comparison"]
    for entry in comparison.entries:
        assert entry.title in text["comparison"]
        if entry.found is not None:
            for value in comparison.by_layer(entry.found).values():
                assert f"{value:+.4g}" in text["comparison"]


def test_the_first_sentence_is_about_what_differs_most(records, pages):
    pair = records["pair"]
    most = int(np.abs(pair.final).argmax())
    first = re.search(r'class="answer">(.*?)</p>', pages["pair", ".html"])[1]
    assert unescape(first).startswith(f"'{pair.targets[most].name}': ")
    several = Difference(*(side.select([1 - most, most]) for side in (pair.a, pair.b)))
    assert difference_sheet(several).says[0] == difference_sheet(pair).says[0]


def test_the_first_sentence_of_an_audit_names_both_layers(records, pages):
    audited = records["audited"]
    credit = np.abs(audited.credits.mean(0)).argmax() + 1
    effect = np.abs(audited.effects.effects.mean(0)).argmax() + 1
    first = re.search(r'class="answer">(.*?)</p>', pages["audited", ".html"])[1]
    assert f"readable at layer {credit} (" in first
    assert f"without layer {effect} (" in first


def test_the_first_sentence_of_a_comparison_counts_who_adds_up(records, pages):
    table = records["comparison"].table
    sums = [one for one in table if one.kind == "contributions"]
    close = [one for one in sums if abs(one.error) <= 1e-3]
    first = re.search(r'class="answer">(.*?)</p>', pages["comparison", ".html"])[1]
    assert f"Credits of {len(close)} of {len(sums)} methods" in first


def badges(page):
    return re.findall(r'<li class="badge (\w+)".*?<b>(.*?)</b>', page)


def failed(sheet):
    return [check.name for check in sheet.checks if check.passed is False]


def test_what_was_verified_says_how_it_came_out(records, pages):
    said = [badges(pages[name, ".html"]) for name in ("pair", "audited", "gates")]
    assert all(state == "ok" for one in said for state, _ in one)
    assert [len(one) for one in said] == [2, 3, 2]
    audited, gates, pair = (records[name] for name in ("audited", "gates", "pair"))
    wrong = replace(audited.identities, last=audited.identities.last + 1)
    off = replace(gates, apart=gates.apart + 1)
    far = replace(pair.b, fidelity=pair.b.fidelity + 0.5)
    assert failed(audit_sheet(replace(audited, identities=wrong))) == ["identities"]
    assert failed(audit_sheet(replace(audited, gates=off))) == ["gate path certified"]
    assert failed(effects_sheet(off)) == ["gate path certified"]
    for sides in ((pair.a, far), (far, pair.a)):
        assert failed(difference_sheet(Difference(*sides))) == ["readout"]
    bad = Check("sum", False, "1, at most 0", "Adds up.")
    assert badges(html_page(a_sheet(checks=(bad,)))) == [("bad", "✗ failed: sum")]
    assert "FAILED: sum: 1, at most 0" in markdown_page(a_sheet(checks=(bad,)))


def test_an_unknown_fidelity_is_worse_than_any(records):
    pair = records["pair"]
    unknown = replace(pair.a, fidelity=np.full_like(pair.a.fidelity, np.nan))
    for sides in ((unknown, pair.b), (pair.b, unknown)):
        check = difference_sheet(Difference(*sides)).checks[0]
        assert (check.passed, check.said) == (None, "not verified")


def test_warnings_of_both_sides_stand_at_the_top(records):
    pair = records["pair"]
    sides = (
        replace(side, warnings=(f"Mind {i}.",))
        for i, side in enumerate((pair.a, pair.b))
    )
    assert difference_sheet(Difference(*sides)).warnings == ("Mind 0.", "Mind 1.")
    page = html_page(a_sheet(warnings=("Mind the gap.",)))
    assert page.index("Mind the gap.") < page.index("<main>")
    assert "Mind the gap." in markdown_page(a_sheet(warnings=("Mind the gap.",)))
    assert 'class="warnings"' not in html_page(a_sheet())


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_shown_and_never_markup(text):
    side = make_attribution(rows=2, texts=(text,), n_layers=2, layers=[1, 2])
    origin = replace(side.provenance, prompt=text, settings={"chat": text})
    model = replace(origin.model, id=text)
    other = replace(side, provenance=replace(origin, model=model), warnings=(text,))
    pair = Difference(side, other, notes=(text,))
    page = html_page(difference_sheet(pair))
    shown = Reader(page).text
    assert "\u202e" not in shown
    assert "\x1b" not in shown
    if text.isprintable() and len(text) < 60:
        assert " ".join(text.split()) in shown
    document = markdown_page(difference_sheet(pair))
    assert "\x1b" not in document
    assert not re.search(r"(?<!\\)<\w", document)


def test_every_line_of_a_token_has_a_then_b_then_b_less_a(records):
    pair = records["pair"]
    first, *lines, last = difference_sheet(pair).numbers[1].lines
    for at, line in enumerate(lines):
        sides = (side.credits[0, at] for side in (pair.a, pair.b, pair))
        assert line[1:4] == [exact_credit(value, pair.unit) for value in sides]
        assert line[4] == ("yes" if pair.beyond_noise[0, at] else "no")
    for line, at in ((first, 0), (last, -1)):
        sides = (format_level(s.levels[0, at], pair.unit) for s in (pair.a, pair.b))
        assert line[1:3] == [*sides]
        assert line[3] == exact_credit(pair.levels[0, at], pair.unit)


def test_what_both_sides_come_from_is_said_once(records):
    pair = records["pair"]
    origin = replace(pair.a.provenance, prompt="one text")
    other = replace(origin, prompt="another")
    a, b = replace(pair.a, provenance=origin), replace(pair.b, provenance=other)
    said = difference_sheet(Difference(a, b)).origin
    assert [pair for pair in said if pair[0].startswith("Prompt")] == [
        ("Prompt, a", "one text"),
        ("Prompt, b", "another"),
    ]
    assert [name for name, _ in said].count("Model") == 1


def test_of_many_rows_only_some_have_pictures_and_the_rest_is_counted():
    side = make_attribution(rows=MOST_ROWS + 3, n_layers=3)
    other = replace(side, levels=side.levels * 0.5, credits=side.credits * 0.5)
    sheet = difference_sheet(Difference(side, other))
    assert len(sheet.drawings) == 1 + PAIRED
    assert len(sheet.numbers) == 1 + MOST_ROWS
    assert len(sheet.numbers[0].lines) == side.n_rows
    assert "And 3 more tokens, in the tables." in sheet.says
    sizes = np.abs(side.credits - other.credits).max(1)
    drawn = {one.title.rpartition(" at ")[2] for one in sheet.drawings[1:]}
    most = np.argsort(-sizes)[:PAIRED]
    assert drawn == {f"{side.positions[row]}, both ways" for row in most}


def a_sheet(**but):
    """A page without charts."""
    given = {
        "question": "Why?",
        "model": "tiny",
        "says": ("Because.",),
        "drawings": (),
        "numbers": (Numbers("T", ("a|b", "c"), [["x*y", "1 | 2"]], ("a|b",)),),
        "checks": (Check("sum", None, "0", "Adds up."),),
        "reading": ("One.",),
        "card": (("Unit", "nats", "What it is in."),),
        "origin": (("Model", "tiny"),),
    }
    return Sheet(**(given | but))


def test_markdown_says_the_same_words():
    page = Reader(html_page(a_sheet())).text
    document = markdown_page(a_sheet())
    words = ("Why?", "tiny", "Because.", "Adds up.", "One.", "What it is in.")
    for word in words[:3] + words[4:]:
        assert word in page
        assert word in document
    assert 'title="Adds up."' in html_page(a_sheet())
    assert r"| a\|b | c |" in document
    assert r"| x\*y | 1 \| 2 |" in document


def test_long_tables_are_folded_away_together():
    shut = Numbers("L", ("a",), [["1"]], shut=True)
    page = html_page(a_sheet(numbers=(shut, replace(shut, title="M"))))
    assert page.count("<details>") == 2
    assert page.count("Every number") == 1
    assert "Every number" not in html_page(a_sheet())


def test_a_page_without_a_first_sentence_is_a_page_all_the_same():
    Reader(html_page(a_sheet(says=())))


def test_plain_pages_have_the_same_dress_and_policy():
    page = plain_page("A <title>", ["<p>text</p>"])
    assert "A &lt;title&gt;" in Reader(page).text or "A <title>" in Reader(page).text
    assert "prefers-color-scheme: dark" in page
    assert "default-src 'none'" in page
