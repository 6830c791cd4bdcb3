"""Rank correlation against counting by hand, and what the bootstrap may say."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from iglens.records.ranks import correlation, interval, ranks, spearman

SOME = st.lists(st.integers(-4, 4), min_size=2, max_size=9)


def slow_ranks(values):
    """Mean of the places that a value may have in a sorted list."""
    return [
        sum(other < own for other in values)
        + (sum(other == own for other in values) + 1) / 2
        for own in values
    ]


@given(SOME)
def test_ranks_are_mean_places(values):
    assert ranks(np.array(values, float)).tolist() == slow_ranks(values)


@given(SOME, st.randoms())
def test_spearman_is_pearson_of_the_ranks(values, random):
    other = random.sample(values, len(values))
    found = spearman(np.array(values, float), np.array(other, float))
    if len(set(values)) == 1:
        assert np.isnan(found)
        return
    expected = np.corrcoef(slow_ranks(values), slow_ranks(other))[0, 1]
    assert found == pytest.approx(expected, abs=1e-12)


def test_spearman_knows_only_the_order():
    values = np.array([0.1, 5.0, -2.0, 0.3])
    assert spearman(values, np.exp(values)) == pytest.approx(1)
    assert spearman(values, -(values**3)) == pytest.approx(-1)
    assert np.isnan(spearman(values, np.array([1.0, np.nan, 2.0, 3.0])))


def test_the_interval_holds_the_mean_and_is_repeatable():
    values = np.random.default_rng(3).normal(0.4, 0.2, 40)
    low, high = interval(values, 0)
    assert low < values.mean() < high
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    assert high - low == pytest.approx(2 * half, rel=0.15)
    assert interval(values, 0) == (low, high)
    assert interval(values, 1) != (low, high)


def test_one_text_has_no_interval_and_undefined_texts_are_left_out():
    assert np.isnan(interval(np.array([0.5]), 0)).all()
    numbers = np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
    effects = np.array([[1.0, 3.0, 2.0], [1.0, 2.0, 3.0]])
    found = correlation("credit", numbers, effects, with_last=True, seed=0)
    assert np.isnan(found.per_text[1])
    assert found.mean == pytest.approx(0.5)
    assert np.isnan([found.low, found.high, found.null]).all()
