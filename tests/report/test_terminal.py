"""The terminal map: it fits, it adds up, and it says the same without colour."""

import io
import re

import numpy as np
import pytest
from factories import make_attribution
from rich.console import Console

from iglens.report.terminal import render
from iglens.report.text import heading, sentence, summary, verification


def drawn(result, width=80, **options):
    file = io.StringIO()
    Console(file=file, width=width, **options).print(render(result, width))
    return file.getvalue()


@pytest.mark.parametrize("rows", [1, 9, 24, 25, 60])
@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal(rows, width):
    lines = drawn(make_attribution(rows=rows, n_layers=40), width).splitlines()
    assert max(map(len, lines)) <= width


def test_colour_adds_nothing_to_the_text():
    result = make_attribution(rows=3, n_layers=12)
    coloured = drawn(result, force_terminal=True, color_system="truecolor")
    assert "\x1b[" in coloured
    bare = re.sub(r"\x1b\[[\d;]*m", "", coloured)
    assert [line.rstrip() for line in bare.splitlines()] == [
        line.rstrip() for line in drawn(result).splitlines()
    ]


def test_no_colour_is_respected(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    text = drawn(make_attribution(rows=2, n_layers=5), force_terminal=True)
    assert not re.search(r"\x1b\[[\d;]*3[0-9]", text)


@pytest.mark.parametrize("rows", [2, 30])
def test_a_sign_is_visible_without_colour(rows):
    result = make_attribution(rows=rows, n_layers=6)
    assert (result.credits < 0).any()
    assert (result.credits > 0).any()
    text = drawn(result)
    assert re.search(r"[-=≡]", text)
    assert re.search(r"[+▁▂▃▄▅▆▇█]", text)


def test_every_token_is_shown_however_many_there_are():
    result = make_attribution(rows=20, n_layers=4)
    text = drawn(result, width=60)
    assert text.count("baseline") == -(-20 // ((60 - 11) // 8))


def test_hostile_tokens_cannot_reach_the_terminal():
    from dataclasses import replace

    from iglens import Target

    result = make_attribution(rows=1, n_layers=3)
    evil = replace(result, targets=(Target((1,), "\x1b]0;owned\x07\x1b[2J‮"),))
    for text in (drawn(evil), summary(evil)):
        assert not set(text) & {"\x1b", "\x07", "‮"}


def test_cells_that_are_not_finite_are_marked():
    from dataclasses import replace

    result = make_attribution(rows=1, n_layers=3)
    credits = result.credits.copy()
    credits[0, 1] = np.nan
    assert "nan" in drawn(replace(result, credits=credits))


def test_the_sentence_names_the_layers_of_the_largest_credit():
    from dataclasses import replace

    result = make_attribution(rows=1, n_layers=4, baseline="embedding")
    levels = np.array([[0.0, 0.0, 0.01, 0.71, 0.77]])
    result = replace(
        result,
        levels=levels,
        credits=np.diff(levels),
        unit="probability",
        noise_floor=np.array([1e-6]),
    )
    name = result.targets[0].text
    said = sentence(result, 0)
    assert said.endswith("0.77; 0.70 of it became readable between layers 2 and 3.")
    assert name.strip()[:1] in said
    assert "probability" in heading(result)


def test_verification_tells_verified_from_not():
    from dataclasses import replace

    result = make_attribution(rows=2, n_layers=3)
    good = replace(result, fidelity=np.zeros(2))
    bad = replace(result, fidelity=np.array([0.0, 0.9]))
    unknown = replace(result, fidelity=np.full(2, np.nan))
    assert verification(good).startswith("Verified")
    assert verification(bad).startswith("NOT the model's own")
    assert verification(unknown).startswith("Not verified")
