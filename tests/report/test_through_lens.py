"""Credits through a lens: both parts are shown, and they add up."""

import io
import re
from dataclasses import replace

import numpy as np
import pytest
from factories import make_attribution
from rich.console import Console

from iglens.records import Flag
from iglens.report.html import html_table
from iglens.report.text import summary
from iglens.report.through_lens import lens_sentences, render_split

LEVELS = np.array([[0.0, 0.5, 0.9, 0.7]])
WRITES = np.array([[0.6, 0.3, 0.1]])  # the lens: -0.1, +0.1, -0.3


def through_lens(**but):
    given = {"rows": 1, "n_layers": 3, "lens": "ridge", "texts": (" Paris",)}
    found = replace(
        make_attribution(**given),
        levels=LEVELS,
        credits=np.diff(LEVELS),
        writes=WRITES,
    )
    return replace(found, **but)


def drawn(result, width=80):
    file = io.StringIO()
    Console(file=file, width=width).print(render_split(result, width))
    return file.getvalue()


def test_every_credit_is_shown_in_two_parts():
    lines = drawn(through_lens()).splitlines()
    assert [line.split() for line in lines[2:]] == [
        ["layers", "block", "lens"],
        ["0", "→", "1", "+0.600", "-0.100"],
        ["1", "→", "2", "+0.300", "+0.100"],
        ["2", "→", "3", "+0.100", "-0.300"],
        ["=", "all", "+1.000", "-0.300"],
    ]


def test_both_parts_are_in_one_sentence_whose_sums_are_those_of_the_table():
    (line,) = lens_sentences(through_lens())
    assert line == (
        "' Paris' through the ridge lens: of its change of +0.700 the blocks wrote "
        "+1.000, the lens changed -0.300."
    )


def test_a_part_that_the_other_cancels_is_not_hidden():
    """The credit of a layer may be 0 where neither part is."""
    still = np.array([[0.0, 0.0, 0.0, 0.7]])
    found = through_lens(levels=still, credits=np.diff(still))
    assert "0 → 1  +0.600  -0.600" in drawn(found)


def test_what_the_lens_moves_to_and_fro_is_not_hidden():
    levels, writes = np.array([[0.0, 0.5, 0.0, 0.7]]), np.array([[0.0, 0.0, 0.7]])
    found = through_lens(levels=levels, credits=np.diff(levels), writes=writes)
    text = drawn(found)
    assert re.search(r"0 → 1 +· +\+0.500", text)
    assert re.search(r"1 → 2 +· +-0.500", text)


@pytest.mark.parametrize("rows", [1, 3, 24])
@pytest.mark.parametrize("width", [40, 80, 200])
def test_every_row_has_both_columns_and_no_line_is_too_wide(rows, width):
    found = make_attribution(rows=rows, n_layers=30, lens="ridge")
    text = drawn(found, width)
    assert max(map(len, text.splitlines())) <= width
    assert len(re.findall(r"\bblock\b(?! wrote)", text)) == rows
    assert len(re.findall(r"\blens\b(?! changed)", text)) == rows


def test_without_a_lens_nothing_is_split():
    plain = make_attribution(rows=2)
    assert render_split(plain, 80) is None
    assert lens_sentences(plain) == []
    assert "lens changed" not in summary(plain)
    assert "lens changed" not in html_table(plain)


def test_many_rows_have_their_sentences_only():
    found = make_attribution(rows=25, lens="ridge")
    assert render_split(found, 80) is None
    assert len(lens_sentences(found)) == 25


def test_writes_that_are_not_known_are_said_to_be_so():
    merged = through_lens().coarsen([2])
    assert np.isnan(merged.writes).any()
    assert "n/a" in drawn(merged)
    (line,) = lens_sentences(merged)
    assert line.endswith("lens: what the blocks wrote of it is not known.")


def test_an_overshoot_is_told_with_its_layer():
    found = through_lens(flags=(Flag(0, 2, "overshoot", "…"),))
    (line,) = lens_sentences(found)
    assert line.endswith("; it passes its final value by 0.20 at layer 2.")
    based = replace(
        make_attribution(rows=1, n_layers=2, lens="ridge", baseline="zero"),
        levels=LEVELS,
        credits=np.diff(LEVELS),
        writes=WRITES,
        flags=(Flag(0, 2, "overshoot", "…"),),
    )
    (line,) = lens_sentences(based)
    assert line.endswith("by 0.20 at layer 1.")


def test_summaries_and_notebooks_say_it_too():
    found = through_lens()
    (line,) = lens_sentences(found)
    assert line in summary(found)
    assert line.split(": ")[1] in html_table(found)


def test_names_of_lenses_are_hostile_too():
    found = through_lens(lens="<b>\x1b[31m")
    (line,) = lens_sentences(found)
    assert "\x1b" not in line
    assert "<b>" not in html_table(found)
