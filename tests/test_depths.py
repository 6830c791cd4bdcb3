import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings

from iglens.depths import Depths, Interval, depths
from iglens.errors import ArgumentError

whole_numbers = st.integers(-8, 8).map(float)
paths = st.lists(whole_numbers, min_size=2, max_size=9)


def depths_of(levels, *, top1=None, layers=None, **options):
    levels = np.array(levels, float)
    if top1 is None:
        top1 = np.zeros(len(levels), bool)
    layers = tuple(range(len(levels))) if layers is None else layers
    return depths(levels, np.diff(levels), np.array(top1, bool), layers, **options)


def slow_point(levels, name):
    """Definitions of method.md, section 5, with a loop over points for each."""
    base, final = levels[0], levels[-1]
    sign = 1 if final > base else -1
    half = abs(final - base) / 2
    points = range(len(levels))
    steps = [abs(levels[k] - levels[k - 1]) for k in points if k]
    for k in points:
        if name == "onset_mass" and sum(steps[:k]) >= 0.5 * sum(steps):
            return k
        if name == "onset_net" and sign * (levels[k] - base) >= half:
            return k
        rest = [sign * (levels[j] - base) >= half for j in points if j >= k]
        if name == "commit" and all(rest):
            return k
    raise AssertionError("the last point always qualifies")


@pytest.mark.parametrize("name", ["onset_mass", "onset_net", "commit"])
@given(levels=paths)
@settings(deadline=None)
def test_a_depth_is_where_the_slow_definition_says(name, levels):
    assume(levels[0] != levels[-1])
    point = slow_point(levels, name)
    assert getattr(depths_of(levels), name) == Interval(point - 1, point)


@given(levels=paths)
@settings(deadline=None)
def test_churn_and_overshoot_are_what_the_slow_definition_says(levels):
    assume(levels[0] != levels[-1])
    found = depths_of(levels)
    sign = 1 if levels[-1] > levels[0] else -1
    steps = [b - a for a, b in itertools.pairwise(levels)]
    assert found.churn == sum(map(abs, steps)) / abs(sum(steps))
    assert found.overshoot == max(0, *(sign * (p - levels[-1]) for p in levels))


@given(top1=st.lists(st.booleans(), min_size=2, max_size=9))
@settings(deadline=None)
def test_prediction_depth_is_the_start_of_the_last_unbroken_run(top1):
    found = depths_of([0.0] * len(top1), top1=top1).prediction_depth
    starts = [k for k in range(len(top1)) if all(top1[k:])]
    if not starts:
        assert found is None
    else:
        assert found == Interval(starts[0] - 1 if starts[0] else None, starts[0])


@given(levels=paths)
@settings(deadline=None)
def test_turning_the_levels_upside_down_changes_no_depth(levels):
    assert depths_of(levels) == depths_of([-level for level in levels])


def test_the_four_depths_of_an_oscillating_row_differ():
    levels = [0.0, 0.6, 0.1, 0.7, 0.2, 1.0]
    top1 = [False, True, False, False, False, True]
    found = depths_of(levels, top1=top1)
    assert found.onset_net == Interval(0, 1)
    assert found.onset_mass == Interval(2, 3)
    assert found.commit == Interval(4, 5)
    assert found.prediction_depth == Interval(4, 5)
    assert found.churn == pytest.approx(3.0)
    assert found.overshoot == 0.0


def test_overshoot_is_how_far_a_level_passed_the_final_one():
    assert depths_of([0.0, 0.9, 0.5]).overshoot == pytest.approx(0.4)
    assert depths_of([1.0, 0.1, 0.5]).overshoot == pytest.approx(0.4)
    assert depths_of([0.0, 0.3, 0.5]).overshoot == 0.0


def test_intervals_speak_of_path_layers():
    found = depths_of([0.0, 0.0, 1.0], top1=[0, 0, 1], layers=(0, 8, 30))
    assert found.commit == found.prediction_depth == Interval(8, 30)


def test_a_baseline_off_the_path_is_no_layer():
    found = depths_of([0.0, 1.0, 1.0], top1=[1, 1, 1], layers=(None, 0, 4))
    assert found.onset_mass == found.commit == Interval(None, 0)
    assert found.prediction_depth == Interval(None, 0)


def test_what_holds_from_the_baseline_on_comes_after_nothing():
    found = depths_of([0.5, 0.1, 0.7], top1=[True] * 3)
    assert found.prediction_depth == Interval(None, 0)


@pytest.mark.parametrize(("change", "known"), [(0.9e-2, False), (1.1e-2, True)])
def test_a_change_below_ten_noise_floors_has_no_depth(change, known):
    found = depths_of([0.5, 0.9, 0.5 + change], top1=[0, 0, 1], noise_floor=1e-3)
    depth_like = (found.onset_mass, found.onset_net, found.commit, found.churn)
    assert [value is not None for value in depth_like] == [known] * 4
    assert found.prediction_depth == Interval(1, 2)
    assert found.overshoot == pytest.approx(0.4 - change)


def test_a_row_that_ends_where_it_began_has_no_depth_even_without_noise():
    assert depths_of([0.5, 0.9, 0.5]) == Depths(None, None, None, None, None, 0.0)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("point", [0, 1, 2])
def test_levels_that_are_not_finite_leave_only_the_prediction_depth(odd, point):
    levels = np.array([0.1, 0.2, 0.9])
    levels[point] = odd
    credits = np.array([np.nan, 0.1])
    found = depths(levels, credits, np.array([False, True, True]), (0, 1, 2))
    assert found == Depths(None, None, None, Interval(0, 1), None, None)


@pytest.mark.parametrize("credits", [[np.nan, 0.1], [0.0, 0.0], [np.inf, 0.0]])
def test_credits_without_a_total_have_no_mass(credits):
    levels, top1 = np.array([0.0, 0.2, 0.9]), np.zeros(3, bool)
    found = depths(levels, np.array(credits), top1, (0, 1, 2))
    assert found.onset_mass is None
    assert found.churn is None
    assert found.onset_net == found.commit == Interval(1, 2)


def test_credits_that_cancel_have_mass_but_no_churn():
    levels, top1 = np.array([0.0, 0.2, 0.9]), np.zeros(3, bool)
    found = depths(levels, np.array([0.5, -0.5]), top1, (0, 1, 2))
    assert found.onset_mass == Interval(0, 1)
    assert found.churn is None


@given(
    steps=st.lists(st.integers(0, 5).map(float), min_size=1, max_size=9),
    switch=st.integers(0, 9),
    kept=st.sets(st.integers(1, 8)),
)
@settings(deadline=None)
def test_coarse_intervals_contain_the_fine_depth_of_monotone_levels(
    steps, switch, kept
):
    levels = np.cumsum([0.0, *steps])
    assume(levels[-1] > 0)
    top1 = np.arange(len(levels)) >= min(switch, len(steps))
    points = sorted({0, len(steps)} | {p for p in kept if p < len(steps)})
    fine = depths_of(levels, top1=top1)
    coarse = depths_of(levels[points], top1=top1[points], layers=tuple(points))
    for name in ("onset_mass", "onset_net", "commit", "prediction_depth"):
        inner, outer = getattr(fine, name), getattr(coarse, name)
        assert inner.upto <= outer.upto
        assert outer.after is None or outer.after < inner.upto


def test_levels_and_credits_of_different_paths_are_refused():
    with pytest.raises(ArgumentError, match=r"`credits` \(1\) one fewer"):
        depths(np.zeros(3), np.zeros(1), np.zeros(3, bool), (0, 1, 2))


def test_the_layers_of_another_path_are_refused():
    with pytest.raises(ArgumentError, match=r"`layers` \(2\)"):
        depths(np.zeros(3), np.zeros(2), np.zeros(3, bool), (0, 1))
