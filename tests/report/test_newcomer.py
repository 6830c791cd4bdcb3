"""The first sentence answers the question, or leaves it to the exact one."""

from dataclasses import replace

import numpy as np
import pytest
from factories import make_attribution

from iglens.records import ENTROPY, Target
from iglens.report.newcomer import first_sentence, stays
from iglens.report.text import sentence


def with_levels(levels, **but):
    levels = np.array([levels], float)
    result = make_attribution(rows=1, n_layers=levels.shape[1] - 1, **but)
    target = (Target((5,), " Paris"),)
    return replace(result, levels=levels, credits=np.diff(levels), targets=target)


def test_it_names_the_layers_between_which_the_token_becomes_readable():
    said = first_sentence(with_levels([0, 0.001, 0.002, 0.02, 0.3, 0.8]), 0)
    assert said == (
        "' Paris' becomes readable at layers 3 to 5 of 5: its probability goes from "
        "0.00 to 0.80."
    )


def test_one_layer_is_named_alone_and_tiny_starts_are_almost_0():
    said = first_sentence(with_levels([1e-9, 1e-9, 0.9]), 0)
    assert "at layer 2 of 2" in said
    assert "from almost 0 (1e-09) to 0.90" in said


def test_what_falls_is_lost():
    assert "is lost at layer 2 of 3" in first_sentence(with_levels([1, 1, 0, 0]), 0)


def test_a_level_that_is_reached_and_left_again_counts_from_its_last_arrival():
    assert stays(np.array([0.0, 1.0, 0.0, 1.0]), 0.5) == 3
    assert stays(np.array([0.0, 1.0, 1.0, 1.0]), 0.5) == 1
    assert stays(np.array([1.0, 0.2, 0.0]), 0.9) == 2


@pytest.mark.parametrize(
    "result",
    [
        with_levels([0, 1, 0, 1, 0, 0.5]),
        with_levels([0.5, 0.5, 0.5]),
        with_levels([-9, -5, -1], unit="log_probability"),
        replace(with_levels([1, 2, 3]), targets=(ENTROPY,)),
        with_levels([0, np.nan, 1]),
    ],
)
def test_where_there_is_no_simple_answer_the_exact_sentence_stands(result):
    assert first_sentence(result, 0) == sentence(result, 0)
