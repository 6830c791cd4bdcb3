"""An answer in sentences and as shares: words first, pieces below, exact margins."""

import io
import re

import numpy as np
import pytest
from factories import make_answer
from rich.console import Console

from iglens.records import Answer
from iglens.report.terminal import render_shares
from iglens.report.text import sentences

PIECES = [" Ha", "noi", " of", " course"]


def answered(seed=0, points=4):
    logs = -np.abs(np.random.default_rng(seed).normal(size=(len(PIECES), points)))
    return make_answer(logs[:, np.argsort(logs.sum(0))], texts=PIECES)


def drawn(answer, width=80):
    file = io.StringIO()
    Console(file=file, width=width).print(render_shares(answer, width))
    return file.getvalue()


def test_a_split_word_has_a_sentence_and_its_pieces_stand_below():
    lines = sentences(answered())
    assert lines[0].startswith("' Hanoi of course' (4 tokens): joint probability")
    assert lines[1].startswith("' Hanoi' (2 pieces): joint probability")
    assert [line.startswith("  '") for line in lines] == [0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize("seed", range(5))
def test_both_margins_of_the_drawn_shares_add_up(seed):
    result = answered(seed)
    rows = [
        [0.0 if cell == "·" else float(cell) for cell in cells]
        for line in drawn(Answer.of(result)).splitlines()
        if (cells := re.findall(r"[-+]\d+\.\d|·", line))
    ]
    body, last = np.array(rows[:-1]), np.array(rows[-1])
    assert last[-1] == pytest.approx(100)
    np.testing.assert_allclose(body.sum(0), last, atol=0.05 * len(body) + 1e-9)
    np.testing.assert_allclose(body[:, :-1].sum(1), body[:, -1], atol=0.2)


@pytest.mark.parametrize("width", [30, 50, 200])
def test_no_line_is_wider_than_the_terminal(width):
    text = drawn(Answer.of(answered(points=9)), width)
    assert max(map(len, text.splitlines())) <= max(width, 60)
    assert text.count("= all") == (2 if width == 30 else 1)
