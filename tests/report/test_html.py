import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from factories import HOSTILE, make_attribution, recipes
from hypothesis import given, settings
from toys import tiny_decoder

import iglens
from iglens.records import Flag
from iglens.report import components
from iglens.report.html import SHOWN_ROWS, html_table

OURS = {
    *("table", "caption", "thead", "tbody", "tr", "th", "td"),
    *("bdi", "br", "abbr", "p"),
}


class Reader(HTMLParser):
    """Cells as text, tags and attributes seen, and whether tags are balanced."""

    def __init__(self, source):
        super().__init__()
        self.lines, self.tags, self.attributes, self.open = [], set(), [], []
        self.text = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag != "br":
            self.open.append(tag)
        if tag == "tr":
            self.lines.append([])
        if tag in ("th", "td"):
            self.lines[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if {"th", "td"} & set(self.open):
            self.lines[-1][-1] += data


@given(recipe=recipes())
@settings(deadline=None)
def test_nothing_from_a_token_becomes_markup(recipe):
    page = Reader(html_table(make_attribution(**recipe)))
    assert page.open == []
    assert page.tags <= OURS
    assert {name for name, _ in page.attributes} <= {"style", "title"}


@pytest.mark.parametrize("text", HOSTILE)
def test_no_character_of_a_token_is_left_unprintable(text):
    source = html_table(make_attribution(texts=(text,)))
    assert source.isprintable()
    assert "<script" not in source


@pytest.mark.parametrize("text", HOSTILE)
def test_names_from_a_model_or_a_file_are_hostile_too(text):
    result = make_attribution(rows=1, n_layers=2)
    model = replace(result.provenance.model, id=text)
    segments = [replace(segment, label=text) for segment in result.segments]
    source = html_table(
        replace(
            result,
            provenance=replace(result.provenance, model=model),
            segments=tuple(segments),
            baseline_kind=text,
            lens=text,
            estimator=text,
            flags=(Flag(0, 1, "unverified", text),),
        )
    )
    page = Reader(source)
    assert source.isprintable()
    assert page.open == []
    assert page.tags <= OURS
    assert {name for name, _ in page.attributes} <= {"style", "title"}


def test_spaces_and_line_breaks_of_a_token_can_be_seen():
    page = Reader(html_table(make_attribution(rows=1, texts=(" a\n",))))
    assert page.lines[0][1].startswith('" a\\n"')


@given(recipe=recipes())
@settings(deadline=None)
def test_layers_go_down_and_tokens_across(recipe):
    result = make_attribution(**recipe)
    lines = Reader(html_table(result)).lines
    assert len(lines) == len(result.segments) + 3
    assert {len(line) for line in lines} == {result.n_rows + 1}
    heads = [line[0] for line in lines[1:]]
    assert heads == ["baseline", *(s.label for s in result.segments), "final"]


def test_a_cell_shows_its_credit_with_its_sign():
    result = make_attribution(rows=2, n_layers=3)
    lines = Reader(html_table(result)).lines[2:-1]
    for segment, line in enumerate(lines):
        for row, text in enumerate(line[1:]):
            assert re.match(r"[+-]", text)
            assert float(text) == pytest.approx(result.credits[row, segment], rel=1e-3)


def test_the_first_and_last_line_show_baseline_and_final_level():
    result = make_attribution(rows=2)
    lines = Reader(html_table(result)).lines
    for line, levels in ((lines[1], result.baseline), (lines[-1], result.final)):
        np.testing.assert_allclose([float(text) for text in line[1:]], levels, 1e-3)


def colours(result):
    cells = re.findall(r'<td style="([^"]*)">([^<]*)', html_table(result))
    return {text: style for style, text in cells}


def test_gains_are_blue_losses_orange_and_the_largest_strongest():
    levels = np.array([[0.0, 0.5, 0.25, 0.25]])
    result = make_attribution(rows=1, n_layers=3)
    result = replace(result, levels=levels, credits=np.diff(levels))
    assert colours(result) == {
        "+0.5": "background:rgba(0,114,178,0.700)",
        "-0.25": "background:rgba(230,159,0,0.350)",
        "+0": "",
    }


def test_a_row_without_any_credit_is_shown_without_colour():
    result = make_attribution(rows=1, n_layers=2)
    result = replace(result, credits=result.credits * 0, levels=result.levels * 0)
    assert set(colours(result).values()) == {""}


def test_odd_cells_are_marked_and_say_why():
    result = make_attribution(rows=1, n_layers=3, holes=[(0, 2, np.nan)])
    page = Reader(html_table(result))
    assert [line[1] for line in page.lines[3:5]] == ["+nan ⚠", "+nan ⚠"]
    reasons = [value for name, value in page.attributes if name == "title"]
    assert reasons == ["The level is nan.", "not a finite number"]


def test_cells_that_are_fine_are_not_marked():
    result = replace(make_attribution(), warnings=())
    assert "⚠" not in html_table(result)


def test_a_flag_of_the_whole_row_is_at_its_head():
    flag = Flag(1, None, "unverified", "there are <no> logits")
    result = replace(make_attribution(rows=2), flags=(flag,), warnings=())
    head = Reader(html_table(result)).lines[0]
    assert ["⚠" in cell for cell in head] == [False, False, True]
    assert "there are &lt;no&gt; logits" in html_table(result)


def test_warnings_are_shown():
    result = replace(make_attribution(), warnings=("the baseline is <large>",))
    assert "⚠ the baseline is &lt;large&gt;" in html_table(result)


@pytest.mark.parametrize(
    ("rows", "says"), [(SHOWN_ROWS, False), (SHOWN_ROWS + 1, True)]
)
def test_rows_that_are_left_out_are_counted(rows, says):
    page = Reader(html_table(make_attribution(rows=rows)))
    assert len(page.lines[0]) == SHOWN_ROWS + 1
    assert (f"first {SHOWN_ROWS} of {rows} rows" in "".join(page.text)) == says


@pytest.mark.parametrize("unit", ["probability", "log_odds"])
def test_the_caption_names_unit_baseline_lens_and_estimator(unit):
    result = make_attribution(unit=unit, baseline="zero")
    text = "".join(Reader(html_table(result)).text)
    for word in (unit, "a/model", "zero baseline", "logit lens", "observed estimator"):
        assert word in text


def test_a_result_without_rows_is_shown_as_an_empty_table():
    page = Reader(html_table(make_attribution().select([])))
    assert {len(line) for line in page.lines} == {1}


def test_notebooks_find_the_table_and_the_text():
    result = make_attribution()
    bundle = result._repr_mimebundle_(include=None, exclude=None)
    assert bundle == {"text/html": html_table(result), "text/plain": str(result)}


def test_notebooks_show_what_is_inside_layers():
    opened = iglens.explain(tiny_decoder("llama"), [3, 1, 4], by="head")
    shown = opened._repr_mimebundle_()["text/html"]
    page = Reader(shown)
    assert page.open == []
    assert page.tags <= OURS | {"details", "summary", "ul", "li"}
    assert shown.startswith(html_table(opened))
    inside = " ".join("".join(page.text).split())
    for line in components.lines(opened)[:5]:
        assert " ".join(line.split()) in inside
