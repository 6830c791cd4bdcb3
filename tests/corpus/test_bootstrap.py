"""Weights are Poisson's and nobody's order; intervals hold as often as they say."""

import math

import numpy as np
import pytest

from iglens.corpus.bootstrap import (
    Drawn,
    Replicated,
    Seen,
    Totals,
    check_settings,
    student_quantile,
    weights,
    widened,
)
from iglens.errors import ArgumentError


def added(values, prompts, n_replicates=200, seed=0, chunks=1):
    """Totals of some rows, added in so many turns."""
    totals = Totals(values.shape[1], n_replicates)
    for part in np.array_split(np.arange(len(values)), chunks):
        drawn = Drawn.of(prompts[part], n_replicates, seed)
        totals.add(values[part], drawn, np.arange(len(part)))
    return totals


def test_weights_are_poisson_with_mean_one():
    found = weights(np.arange(400), 1000, seed=5)
    counts = np.bincount(found.ravel(), minlength=8)
    for n in range(6):
        share = math.exp(-1) / math.factorial(n)
        error = math.sqrt(share / found.size)
        assert abs(counts[n] / found.size - share) < 5 * error


def test_weights_of_prompts_and_replicates_are_independent():
    found = weights(np.arange(60), 1000, seed=0).astype(float)
    assert np.abs(np.corrcoef(found) - np.eye(60)).max() < 0.2
    halves = np.corrcoef(found[:, :500].ravel(), found[:, 500:].ravel())[0, 1]
    assert abs(halves) < 0.03


def test_weights_depend_on_prompt_and_seed_and_on_nothing_else():
    some = weights(np.array([7, 3, 11]), 100, seed=2)
    assert (some[1] == weights(np.array([3]), 100, seed=2)[0]).all()
    assert (some != weights(np.array([7, 3, 11]), 100, seed=3)).any()
    assert (some[:, :50] == weights(np.array([7, 3, 11]), 1000, seed=2)[:, :50]).all()


def test_totals_are_an_explicit_bootstrap():
    rng = np.random.default_rng(0)
    prompts = np.repeat(np.arange(12), rng.integers(1, 5, 12))
    values = rng.normal(size=(len(prompts), 3))
    totals = added(values, prompts, n_replicates=50, seed=9)
    drawn = weights(np.arange(12), 50, seed=9)
    for b in range(50):
        slow = sum(
            int(drawn[prompt, b]) * row
            for prompt, row in zip(prompts, values, strict=True)
        )
        assert totals.replicates[b] == pytest.approx(slow, abs=1e-12)
    assert totals.sums == pytest.approx(values.sum(0))
    assert totals.n_prompts == 12


def test_order_and_batches_do_not_matter():
    rng = np.random.default_rng(1)
    prompts, values = rng.integers(0, 30, 200), rng.normal(size=(200, 2))
    order = rng.permutation(200)
    one = added(values, prompts)
    other = added(values[order], prompts[order], chunks=17)
    assert one.replicates == pytest.approx(other.replicates, abs=1e-10)
    assert one.n_prompts == other.n_prompts == len(set(prompts.tolist()))


def test_no_rows_are_no_ratio():
    totals = Totals(2, 100)
    totals.add(np.zeros((0, 2)), Drawn.of(np.zeros(0, int), 100, 0), np.zeros(0, int))
    found = totals.ratio(0, 1).estimate(0.95)
    assert math.isnan(found.value)
    assert not found.bounded


def test_only_prompts_that_have_a_number_count_for_its_interval():
    """A depth that 8 of 30 prompts have is no better known than one of 8 prompts."""
    totals = Totals(2, 100, counts=[1])
    prompts = np.repeat(np.arange(30), 2)
    values = np.column_stack([prompts, prompts % 4 == 1]).astype(float)
    for some in np.array_split(np.arange(60), 7):
        drawn = Drawn.of(prompts[some], 100, 0)
        totals.add(values[some], drawn, np.arange(len(some)))
    assert (totals.n_prompts, totals.ratio(0, 1).n_prompts) == (30, 8)
    assert totals.ratio(1, 0).n_prompts == 30


def test_numbers_seen_are_counted_once():
    seen = Seen()
    for some in ([0, 9, 9], [1000, 0], [7, 8]):
        seen.add(np.array(some))
    assert seen.count == 5


@pytest.mark.parametrize(("freedom", "table"), [(7, 2.3646), (20, 2.0860)])
def test_students_quantile_is_that_of_the_tables(freedom, table):
    assert student_quantile(1.959964, freedom) == pytest.approx(table, abs=2e-3)


def test_few_prompts_have_no_interval_and_many_need_no_widening():
    few = Replicated(np.array(1.0), np.linspace(0, 2, 100), 7)
    assert not few.estimate(0.95).bounded
    assert Replicated(np.array(1.0), np.linspace(0, 2, 100), 8).estimate(0.95).bounded
    assert np.isnan(
        Replicated(np.ones(2), np.ones((100, 2)), 7).band(0.95).band_low
    ).all()
    assert widened(1.96, 8) / 1.96 == pytest.approx(1.29, abs=0.01)
    assert widened(1.96, 100_000) / 1.96 == pytest.approx(1, abs=1e-4)


def test_a_place_that_never_moves_has_a_band_of_no_width():
    rng = np.random.default_rng(0)
    replicates = np.column_stack([rng.normal(size=500), np.full(500, 3.0)])
    band = Replicated(np.array([0.0, 3.0]), replicates, 50).band(0.95)
    assert (band.band_low[1], band.band_high[1]) == (3.0, 3.0)
    assert band.clear.tolist() == [False, True]


def test_a_band_is_wider_than_its_intervals():
    rng = np.random.default_rng(0)
    band = Replicated(np.zeros(20), rng.normal(size=(1000, 20)), 500).band(0.95)
    assert (band.band_high - band.band_low > 1.3 * (band.high - band.low)).all()


def simulated(seed, n_prompts, by_row=False):
    """Whether intervals and band of one simulated corpus hold the truth.

    Longer prompts have other means, so that only a ratio of sums is right: with
    1 to 6 rows and means rising by the number of rows, the mean over rows is
    sum(k * k) / sum(k) = 91 / 21 times 0.02.
    """
    rng = np.random.default_rng(seed)
    n_rows = rng.integers(1, 7, n_prompts)
    prompts = np.repeat(np.arange(n_prompts), n_rows)
    own = rng.normal(0, 1, (n_prompts, 8)) + 0.5 * rng.normal(0, 1, (n_prompts, 1))
    values = 0.02 * n_rows[prompts][:, None] + own[prompts]
    values = np.column_stack([values + rng.normal(0, 0.3, values.shape), prompts >= 0])
    clusters = np.arange(len(prompts)) if by_row else prompts
    band = added(values, clusters, 400, seed).ratio(slice(0, 8), 8).band(0.95)
    truth = 0.02 * 91 / 21
    inside = (band.low <= truth) & (truth <= band.high)
    at_once = ((band.band_low <= truth) & (truth <= band.band_high)).all()
    return inside.mean(), at_once


@pytest.mark.slow
@pytest.mark.parametrize("n_prompts", [8, 20, 60])
def test_intervals_and_bands_hold_as_often_as_they_say(n_prompts):
    found = np.array([simulated(seed, n_prompts) for seed in range(600)])
    single, at_once = found.mean(0)
    assert 0.925 < single < 0.975
    assert 0.92 < at_once < 0.985


@pytest.mark.slow
def test_rows_taken_for_independent_hold_too_rarely():
    found = np.array([simulated(seed, 60, by_row=True) for seed in range(300)])
    assert (found.mean(0) < [0.85, 0.6]).all()


@pytest.mark.parametrize(
    "odd", [{"level": 0.4}, {"level": 1.0}, {"n_replicates": 99}, {"seed": -1}]
)
def test_settings_that_give_no_interval_are_refused(odd):
    check_settings(0.95, 1000, 0)
    with pytest.raises(ArgumentError):
        check_settings(**{"level": 0.95, "n_replicates": 1000, "seed": 0} | odd)
