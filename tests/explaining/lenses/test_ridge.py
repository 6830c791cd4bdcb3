import numpy as np
import pytest
import torch
from toys import normal

from iglens.errors import ArgumentError, NonFiniteError
from iglens.explaining.lenses.moments import Moments
from iglens.explaining.lenses.ridge import ridge_translator

D = 6


def correlated(rows, seed=0, shift=3.0):
    """States with a large mean, and last states that depend on them."""
    x = normal(rows, D, seed=seed) @ normal(D, D, seed=seed + 1) + shift
    y = x @ normal(D, D, seed=seed + 2) + normal(rows, D, seed=seed + 3) - 2 * shift
    return x, y


def moments_of(x, y, sizes=None):
    moments = Moments(x.shape[1])
    for a, b in zip(x.split(sizes or len(x)), y.split(sizes or len(y)), strict=True):
        moments.add(a, b)
    return moments


def oracle(x, y, penalty):
    """All rows at once: the penalty as rows of their own, the bias as a column."""
    x, r = x.double().numpy(), (y.double() - x.double()).numpy()
    n, d = x.shape
    strength = penalty * np.trace(np.cov(x.T, bias=True).reshape(d, d)) / d
    top = np.hstack([x, np.ones((n, 1))]) / np.sqrt(n)
    bottom = np.hstack([np.sqrt(strength) * np.eye(d), np.zeros((d, 1))])
    aim = np.vstack([r / np.sqrt(n), np.zeros((d, d))])
    solution = np.linalg.lstsq(np.vstack([top, bottom]), aim, rcond=None)[0]
    return torch.from_numpy(solution[:-1].T), torch.from_numpy(solution[-1])


@pytest.mark.parametrize("penalty", [1e-6, 0.01, 1.0, 100.0])
@pytest.mark.parametrize("sizes", [1, 7, 1000])
def test_the_streamed_translator_is_the_least_squares_one(penalty, sizes):
    x, y = correlated(200)
    weight, bias = ridge_translator(moments_of(x, y, sizes), penalty, layer=0)
    slow_weight, slow_bias = oracle(x, y, penalty)
    torch.testing.assert_close(weight, slow_weight, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(bias, slow_bias, rtol=1e-9, atol=1e-9)


def test_no_other_translator_nearby_costs_less():
    x, y = correlated(100)
    moments = moments_of(x, y)
    weight, bias = ridge_translator(moments, 0.1, layer=0)
    strength = 0.1 * moments.xx.trace() / moments.n / D

    def cost(a, b):
        missed = y - x - x @ a.T - b
        return missed.square().sum(1).mean() + strength * a.square().sum()

    for seed in range(20):
        a = weight + 1e-3 * normal(D, D, seed=seed)
        b = bias + 1e-3 * normal(D, seed=seed + 1)
        assert cost(weight, bias) < cost(a, b)


def test_moments_are_those_of_all_rows_however_they_came():
    x, y = correlated(50, shift=1e6)  # a mean that would eat the digits of raw sums
    moments = moments_of(x, y, 8)
    a, b = x - x.mean(0), y - y.mean(0)
    assert moments.n == 50
    torch.testing.assert_close(moments.mean_x, x.mean(0), rtol=1e-14, atol=0)
    torch.testing.assert_close(moments.mean_y, y.mean(0), rtol=1e-14, atol=0)
    torch.testing.assert_close(moments.xx, a.T @ a, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(moments.xy, a.T @ b, rtol=1e-7, atol=1e-7)


def test_no_rows_change_nothing():
    x, y = correlated(9)
    moments = moments_of(x, y)
    before = moments.xx.clone()
    moments.add(x[:0], y[:0])
    assert moments.n == 9
    assert torch.equal(moments.xx, before)


def test_a_huge_penalty_leaves_the_shift_of_the_means():
    x, y = correlated(200)
    weight, bias = ridge_translator(moments_of(x, y), 1e12, layer=0)
    assert float(weight.abs().max()) < 1e-9
    torch.testing.assert_close(bias, (y - x).mean(0), rtol=1e-9, atol=1e-9)


def test_equal_streams_need_no_translator():
    x, _ = correlated(200)
    weight, bias = ridge_translator(moments_of(x, x), 0.01, layer=0)
    assert torch.equal(weight, torch.zeros(D, D, dtype=torch.float64))
    assert torch.equal(bias, torch.zeros(D, dtype=torch.float64))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_moments_that_are_not_finite_are_refused_by_layer(value):
    x, y = correlated(20)
    x[3, 2] = value
    with pytest.raises(NonFiniteError, match="layer 17"):
        ridge_translator(moments_of(x, y), 0.01, layer=17)


def test_too_few_tokens_without_a_penalty_are_refused_with_their_number():
    x, y = correlated(D)  # one dimension short, once the mean is out
    with pytest.raises(ArgumentError, match=rf"layer 3 .* {D} tokens do not span"):
        ridge_translator(moments_of(x, y), 0.0, layer=3)
    ridge_translator(moments_of(x, y), 1e-3, layer=3)


@pytest.mark.parametrize("penalty", [-0.1, float("nan"), float("inf")])
def test_an_impossible_penalty_is_refused(penalty):
    x, y = correlated(20)
    with pytest.raises(ArgumentError, match="`ridge` is"):
        ridge_translator(moments_of(x, y), penalty, layer=0)
