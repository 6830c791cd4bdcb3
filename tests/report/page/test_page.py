"""The page: complete in itself, under its own law, and harmless whatever it shows."""

import json
import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser

import numpy as np
import pytest
from factories import HOSTILE, make_attribution, recipes
from hypothesis import given, settings

from iglens.records import Flag
from iglens.report.page import html_page
from iglens.report.page.checks import checks
from iglens.report.page.payload import MOST_CELLS, binned, payload

PAYLOADS = (
    *HOSTILE,
    "</script><script>window.hit=1</script>",
    "<!--<script>",
    "]]><svg onload=hit()>",
    "javascript:hit()",
    "{{constructor.constructor('hit()')()}}",
    "${hit()}",
    "' + hit() + '",
    "datum.hit",
    "\u2028\u2029",
    "\u200b\u200d\ufeff",
    "\u2066\u202eevil\u2069",
    "\ud800",
    "a" + 10_000 * "\N{COMBINING ACUTE ACCENT}",
    "{name}",
)


class Page(HTMLParser):
    """Elements and attributes of a page, and what its scripts are."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.attributes, self.scripts, self.text = [], [], [], []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag == "script":
            self.scripts.append([dict(attrs), ""])

    def handle_data(self, data):
        if self.tags and self.tags[-1] == "script" and not self.scripts[-1][1]:
            self.scripts[-1][1] = data
        else:
            self.text.append(data)

    def attribute(self, name):
        return [value for _, key, value in self.attributes if key == name]


@pytest.fixture(scope="module")
def plain():
    return Page(html_page(make_attribution(rows=2, texts=("x",))))


def hostile(text):
    """A result in which every text that can be chosen is this one."""
    result = make_attribution(rows=2, texts=(text,), top=2, layers=[1, 2], n_layers=2)
    origin = result.provenance
    model = replace(origin.model, id=text, note=text, revision=text)
    return replace(
        result,
        provenance=replace(
            origin, model=model, prompt=text, settings={"text": text}, created=text
        ),
        flags=(Flag(0, None, "unverified", text), Flag(1, 1, "overshoot", text)),
        warnings=(text,),
        baseline_kind=text,
        estimator=text,
        segments=tuple(replace(s, part=text, label=text) for s in result.segments),
    )


@pytest.mark.parametrize("text", PAYLOADS)
def test_no_text_becomes_markup_or_script(plain, text):
    source = html_page(hostile(text))
    source.encode()  # no lone surrogate is left
    page = Page(source)
    assert len(page.scripts) == 3
    assert [body for _, body in page.scripts[1:]] == [b for _, b in plain.scripts[1:]]
    assert set(page.tags) <= set(plain.tags) | {"ul", "li", "p", "abbr"}
    assert not [key for _, key, _ in page.attributes if key.startswith("on")]
    data = json.loads(page.scripts[0][1])
    assert len(data["data"]["rows"]) == 2


@given(recipe=recipes())
@settings(deadline=None, max_examples=10)
def test_any_result_makes_a_page_whose_data_can_be_read(recipe):
    result = make_attribution(**recipe)
    page = Page(html_page(result))
    data = json.loads(page.scripts[0][1])["data"]
    found = np.array(data["credits"], float)
    np.testing.assert_allclose(found, result.credits, rtol=1e-5)


def test_the_law_of_the_page_allows_its_own_scripts_and_nothing_else(plain):
    (policy,) = [v for v in plain.attribute("content") if v and "default-src" in v]
    for attributes, body in plain.scripts[1:]:
        assert attributes == {}
        digest = b64encode(sha256(body.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.count("sha256-") == 2
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert "unsafe-inline" not in policy.split("style-src")[0]


def test_the_page_refers_to_nothing_outside(plain):
    assert plain.attribute("src") == []
    assert [href for href in plain.attribute("href") if not href.startswith("#")] == []
    assert "link" not in plain.tags
    assert "@import" not in html_page(make_attribution())


def test_the_first_sentence_and_a_table_are_there_without_scripts():
    result = make_attribution(rows=2, texts=(" Paris",))
    text = "".join(Page(html_page(result)).text)
    assert "Credit of each layer" in text
    assert "becomes readable" in json.dumps(payload(replace(result))) or "Paris" in text


def test_large_results_stay_small_pages():
    big = make_attribution(rows=500, n_layers=80, texts=(" token", " another"))
    size = len(html_page(big).encode())
    assert size < 5_000_000


def test_even_larger_ones_add_layers_up_and_say_so():
    n_rows = MOST_CELLS // 80 * 2 + 1
    result = make_attribution(rows=n_rows, n_layers=80, texts=("x",))
    shown, group = binned(result)
    assert group == 3
    assert shown.credits.size <= MOST_CELLS
    np.testing.assert_allclose(shown.credits.sum(1), result.credits.sum(1), atol=1e-9)
    assert {s.layer - (s.after or 0) for s in shown.segments} <= {group, 80 % group}
    assert binned(make_attribution(rows=3))[1] == 1


def test_lists_that_do_not_fit_are_left_out_and_said_to_be():
    from iglens.report.page.further import Budget

    budget = Budget(left=10)
    assert budget.take(8)
    assert not budget.short
    assert not budget.take(3)
    assert budget.short
    assert budget.take(2)


def test_a_page_opens_with_the_first_token_that_moves():
    result = make_attribution(rows=3, n_layers=3)
    levels = result.levels.copy()
    levels[0] = 0.5
    still = replace(result, levels=levels, credits=np.diff(levels))
    assert payload(still)["first"] == 1
    assert payload(result)["first"] == 0
    assert payload(still.select([0]))["first"] == 0


def test_marked_cells_reach_the_page():
    result = make_attribution(rows=2, n_layers=3, holes=[(1, 2, np.nan)])
    data = payload(result)
    assert [(r, s) for r, s, _ in data["odd"]] == [(1, 1), (1, 2)]
    assert [(r, p) for r, p, _ in data["oddLevels"]] == [(1, 2)]
    assert data["credits"][1][1] is None


def by_name(result):
    return {check.name: check for check in checks(result)}


def test_a_badge_says_that_the_readout_failed_where_it_did():
    result = make_attribution(rows=2)
    assert by_name(result)["readout"].passed
    wrong = replace(result, fidelity=np.array([0.0, 0.5]))
    assert by_name(wrong)["readout"].passed is False
    assert "failed" in html_page(wrong)
    assert "failed: readout" not in html_page(result)
    unknown = replace(result, fidelity=np.array([0.0, np.nan]))
    assert by_name(unknown)["readout"].passed is None
    assert by_name(unknown)["readout"].said == "not verified"


def test_a_badge_says_whether_credits_add_up():
    result = make_attribution(rows=2)
    assert by_name(result)["adds up"].passed
    off = replace(result, credits=result.credits + 0.1)
    assert by_name(off)["adds up"].passed is False
    gradient = make_attribution(rows=2, estimator="gradient(midpoint, n_steps=4)")
    assert by_name(gradient)["adds up"].passed is None


def test_the_words_of_the_page_are_about_reading(plain):
    text = " ".join("".join(plain.text).split())
    assert "not about causes" in text
    assert not re.search(r"computed (in|at) layer|stored in", text)
