"""The document in Markdown: sentences, table, checks; no token is markup."""

import numpy as np
import pytest
from factories import HOSTILE, make_attribution

from iglens.report.markdown import COLUMNS, markdown_page


def cells(page):
    lines = [
        line
        for line in page.splitlines()
        if line.startswith("| ") and "--:" not in line
    ]
    return [line.strip("| ").split(" | ") for line in lines]


def test_every_credit_is_in_the_table():
    result = make_attribution(rows=2, n_layers=4, texts=("x",))
    head, start, *credits, final = cells(markdown_page(result))
    assert len(head) == 3
    assert (start[0], final[0]) == ("start: embedding", "= readout")
    shown = np.array([[float(c) for c in line[1:]] for line in credits])
    np.testing.assert_allclose(shown, result.credits.T, atol=5.1e-4)


def test_many_tokens_take_several_tables():
    page = markdown_page(make_attribution(rows=2 * COLUMNS + 1, texts=("x",)))
    assert page.count("| layer |") == 3


def test_odd_cells_are_marked():
    page = markdown_page(make_attribution(rows=1, holes=[(0, 2, np.nan)]))
    assert page.count("nan ⚠") == 2


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_stay_in_their_cell(text):
    page = markdown_page(make_attribution(rows=2, texts=(text,)))
    assert "\x1b" not in page
    assert "\n<" not in page
    assert "<script" not in page.replace("\\<", "")
    assert {len(line) for line in cells(page.replace("\\|", ""))} == {3}
