import math

import hypothesis.strategies as st
import oracle
import pytest
import torch
from hypothesis import given, settings
from toys import normal

from iglens.readout.streamed import summarise
from iglens.readout.target import leads, level, level_slope, margin
from iglens.records import UNITS

INF = torch.inf
ONE = torch.ones(1, dtype=torch.float64)


@st.composite
def splits(draw):
    """A vocabulary, the tokens that stand apart, and which of them are the target."""
    vocab = draw(st.integers(2, 40))
    apart = draw(st.lists(st.integers(0, vocab - 1), min_size=1, unique=True))
    size = draw(st.integers(1, len(apart)))
    return vocab, apart, size


def read_of(z, apart, size):
    """What is left of some rows of logits, and the slots of the target."""
    tokens = torch.tensor([[*apart, -1]] * len(z))
    chosen = torch.zeros_like(tokens, dtype=torch.bool)
    chosen[:, :size] = True
    return summarise(z, tokens), chosen


@pytest.mark.parametrize("unit", UNITS[:3])
@settings(deadline=None, max_examples=60)
@given(
    split=splits(), spread=st.sampled_from([0.1, 3.0, 100.0]), seed=st.integers(0, 99)
)
def test_levels_of_tokens_and_sets_are_the_oracle_s(unit, split, spread, seed):
    vocab, apart, size = split
    z = spread * normal(3, vocab, seed=seed)
    found = level(margin(*read_of(z, apart, size)), unit)
    expected = oracle.level(z, apart[:size], unit)
    scale = 1.0 if unit == "probability" else spread
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-13 * scale)


@pytest.mark.parametrize("unit", UNITS[:3])
def test_which_other_tokens_stand_apart_does_not_matter(unit):
    z = normal(4, 30)
    alone = level(margin(*read_of(z, [3, 8], 2)), unit)
    among = level(margin(*read_of(z, [8, 3, 0, 29, 14], 2)), unit)
    torch.testing.assert_close(among, alone)


@pytest.mark.parametrize("unit", UNITS[:3])
def test_the_slope_of_a_level_is_its_derivative(unit):
    at = torch.linspace(-30, 30, 25, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(level(at, unit).sum(), at)
    found = level_slope(at.detach(), torch.full_like(at, 3.0), unit)
    torch.testing.assert_close(found, 3 * expected)


@pytest.mark.parametrize("at", [-60.0, 60.0])
def test_slopes_far_from_even_odds_keep_their_digits(at):
    """`p (1 - p)` is about exp(-60) at both ends, though 1 - p is 0 at one."""
    slope = level_slope(torch.tensor([at]).double(), ONE, "probability")
    assert float(slope) == pytest.approx(math.exp(-60), rel=1e-12, abs=0)
    log = level_slope(torch.tensor([60.0]).double(), ONE, "log_probability")
    assert float(log) == pytest.approx(math.exp(-60), rel=1e-12, abs=0)


@settings(deadline=None, max_examples=150)
@given(
    row=st.lists(st.integers(-2, 2).map(float), min_size=2, max_size=8), data=st.data()
)
def test_the_target_leads_where_it_has_the_largest_logit_alone(row, data):
    ids = st.integers(0, len(row) - 1)
    apart = data.draw(st.lists(ids, min_size=1, unique=True))
    size = data.draw(st.integers(1, len(apart)))
    first, tied = leads(*read_of(torch.tensor([row]), apart, size), torch.float32)
    best = max(row[v] for v in apart[:size])
    rivals = [z for v, z in enumerate(row) if v not in apart[:size]]
    rival = max(rivals, default=-INF)
    assert bool(first) == (best > rival)
    assert bool(tied) == (best == rival)


def test_a_logit_that_is_no_number_leads_nothing():
    z = normal(1, 9)
    z[0, 4] = torch.nan
    for target in (4, 5):
        first, tied = leads(*read_of(z, [target], 1), torch.float64)
        assert not first
        assert not tied


def test_logits_that_differ_less_than_the_others_were_read_are_tied():
    z = torch.tensor([[1.0, 1.0 + 1e-9]], dtype=torch.float64)
    read, chosen = read_of(z, [1, 0], 1)
    assert [bool(x) for x in leads(read, chosen, torch.float64)] == [True, False]
    assert [bool(x) for x in leads(read, chosen, torch.float32)] == [False, True]
