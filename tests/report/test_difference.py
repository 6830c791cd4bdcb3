"""The table of a difference: it fits, it adds up, it says what is rounding."""

import io
import re
from dataclasses import replace

import numpy as np
import pytest
from factories import HOSTILE, make_attribution
from rich.console import Console

from iglens.records.difference import Difference, diff
from iglens.report.difference import render, sentence, sides, summary


def pair(rows=2, n_layers=6, **options):
    a = make_attribution(rows=rows, n_layers=n_layers, **options)
    b = make_attribution(rows=rows, n_layers=n_layers, **options | {"seed": 9})
    same = ("token_ids", "token_texts", "positions", "targets", "vocabulary")
    return Difference(a, replace(b, **{name: getattr(a, name) for name in same}))


def drawn(difference, width=80, **options):
    file = io.StringIO()
    Console(file=file, width=width, **options).print(render(difference, width))
    return file.getvalue()


@pytest.mark.parametrize("rows", [1, 9, 24, 25, 60])
@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_line_is_wider_than_the_terminal(rows, width):
    lines = drawn(pair(rows, 40), width).splitlines()
    assert max(map(len, lines)) <= width


def test_both_sides_are_shown_where_there_is_room():
    wide, narrow = drawn(pair(2), 80), drawn(pair(2), 40)
    assert re.search(r"layers +a +b +b - a +a +b +b - a\n", wide)
    assert re.search(r"layers +b - a +b - a\n", narrow)


def test_the_numbers_are_the_differences():
    difference = pair(1, 4)
    lines = drawn(difference).splitlines()
    shown = [float(line.split()[-1]) for line in lines if "→" in line]
    np.testing.assert_allclose(shown, difference.credits[0], atol=6e-4)
    assert lines[-1].split()[-1] == f"{difference.final[0]:+.3f}"


def test_colour_adds_nothing_to_the_text():
    difference = pair(3, 12)
    coloured = drawn(difference, force_terminal=True, color_system="truecolor")
    bare = re.sub(r"\x1b\[[\d;]*m", "", coloured)
    assert "\x1b[" in coloured
    assert [line.rstrip() for line in bare.splitlines()] == [
        line.rstrip() for line in drawn(difference).splitlines()
    ]


def test_what_is_rounding_is_dim():
    quiet, loud = pair(1, 3, noise_floor=9.0), pair(1, 3, noise_floor=0.0)
    for difference, dims in ((quiet, True), (loud, False)):
        text = drawn(difference, 35, force_terminal=True, color_system="truecolor")
        cells = [line for line in text.splitlines() if "→" in line]
        assert all(("\x1b[2m" in line) is dims for line in cells)


def test_nothing_beyond_rounding_is_said_in_words():
    difference = pair(noise_floor=9.0)
    text = summary(difference)
    assert "no layer differs beyond rounding" in sentence(difference, 0)
    assert "No layer differs beyond rounding. Combined noise floor" in text
    assert " lies " not in text


def test_the_sentence_names_the_segment_with_most_of_it():
    a = make_attribution(rows=1, n_layers=4)
    levels = np.array([[0.1, 0.2, 0.3, 0.4, 0.5]])
    lower = np.array([[0.1, 0.15, 0.25, 0.05, 0.1]])
    a, b = (
        replace(a, levels=one, credits=np.diff(one, axis=1)) for one in (levels, lower)
    )
    assert sentence(diff(a, b), 0) == (
        "' Paris': 0.50 → 0.10; -0.300 of the difference of -0.400 lies between layers "
        "2 and 3."
    )


def test_levels_that_are_not_finite_name_no_layer():
    difference = pair(1, holes=[(0, 2, np.nan)])
    assert "not finite" in sentence(difference, 0)
    assert "!nan" in drawn(difference)


def test_each_side_is_told_by_what_differs():
    difference = pair(1)
    model = replace(difference.b.provenance.model, dtype="float32")
    other = replace(
        difference.b, provenance=replace(difference.b.provenance, model=model)
    )
    assert sides(replace(difference, b=other)) == ("a: bfloat16", "b: float32")
    prompted = replace(
        difference.b, provenance=replace(difference.b.provenance, prompt="other")
    )
    assert sides(replace(difference, b=prompted)) == ("a:  Paris", "b: other")


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_can_restyle_a_terminal(text):
    difference = pair(2, texts=(text,))
    shown = drawn(difference) + summary(difference)
    assert not set(shown) & set("\x00\x1b\r\u202e")
