import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from iglens.model.inside.cuts import addends, between, cuts, descendants, stretches
from iglens.model.inside.dataflow import Node


def node(*parents, weighty=False, terms=None):
    shape = torch.Size((1, 2, 3))
    return Node("op", parents, None, weighty, False, shape, torch.float32, terms)


def graph(*parents, weighty=()):
    return [node(*p, weighty=i in weighty) for i, p in enumerate(parents)]


@st.composite
def graphs(draw):
    """Parents of each node, all of them earlier ones; some nodes lead nowhere."""
    size = draw(st.integers(2, 9))
    return [
        sorted(draw(st.sets(st.integers(0, i - 1), max_size=3))) if i else []
        for i in range(size)
    ]


def paths(parents, start, end):
    """Every path, one by one."""
    if start == end:
        return [[end]]
    return [
        [*path, end]
        for parent in parents[end]
        if parent >= start
        for path in paths(parents, start, parent)
    ]


@given(graphs(), st.data())
def test_cuts_are_what_every_path_crosses(parents, data):
    end = data.draw(st.integers(1, len(parents) - 1))
    start = data.draw(st.integers(0, end - 1))
    without = data.draw(st.none() | st.integers(0, len(parents) - 1))
    if without in (start, end):
        without = None
    nodes = graph(*parents)
    every = [path for path in paths(parents, start, end) if without not in path]
    members = set().union(*every)
    found = between(nodes, start, end, without=without)
    assert found == sorted(members)
    if every and without is None:
        crossed = set.intersection(*map(set, every))
        assert cuts(nodes, found) == sorted(crossed)


PRE_NORM = graph((), (0,), (1,), (0, 2), (3,), (4,), (3, 5), weighty=(2, 5))
"""h, norm, attention, sum, norm, MLP, sum."""

PARALLEL = graph((), (0,), (1,), (1,), (2, 3), (0, 4), weighty=(2, 3))
"""h, norm, attention, MLP, their sum, and the sum of all."""


def test_a_pre_norm_block_is_cut_at_its_sums():
    path = between(PRE_NORM, 0, 6)
    assert cuts(PRE_NORM, path) == [0, 3, 6]
    assert stretches(PRE_NORM, path) == [(0, 3), (3, 6)]


def test_a_parallel_block_is_cut_nowhere():
    path = between(PARALLEL, 0, 5)
    assert cuts(PARALLEL, path) == [0, 5]
    assert stretches(PARALLEL, path) == [(0, 5)]


def test_weights_belong_to_the_stretch_that_ends_with_what_they_make():
    chain = graph((), (0,), (1,), (2,), weighty=(2,))
    assert stretches(chain, between(chain, 0, 3)) == [(1, 2)]


def test_stretches_need_weights_that_lie_on_a_path():
    dead = graph((), (0,), (0,), (1,), weighty=(2,))
    assert stretches(dead, between(dead, 0, 3)) == []


def test_descendants_stay_on_the_path():
    assert descendants(PARALLEL, [1, 2, 4], [2]) == {2, 4}
    assert descendants(PARALLEL, [1, 2, 4], []) == set()


def summed(*terms):
    """A node for each sum of multiples; None for a value that is no sum."""
    return [node(*(parent for parent, _ in sums or ()), terms=sums) for sums in terms]


def test_a_sum_of_sums_has_the_products_of_the_factors():
    nodes = summed(None, None, ((0, 0.5), (1, 1.0)), ((2, 2.0), (1, 3.0)))
    assert addends(nodes, 3, 0, ()) == {0: 1.0, 1: 5.0}
    assert addends(nodes, 3, 0, {2}) == {2: 2.0, 1: 3.0}


def test_the_start_is_not_taken_apart():
    nodes = summed(None, ((0, 2.0),), ((1, 3.0),))
    assert addends(nodes, 2, 1, ()) == {1: 3.0}
    assert addends(nodes, 2, 0, ()) == {0: 6.0}


@pytest.mark.parametrize("where", [0, 1])
def test_what_is_no_number_makes_no_number(where):
    terms = [((0, 1.0),), ((1, 1.0),)]
    terms[where] = ((where, None),)
    nodes = summed(None, *terms, ((2, 1.0), (0, 1.0)))
    assert addends(nodes, 3, 0, ()) == {0: None}
