"""Through a lens the telescope stays, and a credit is split into write and map."""

import itertools
from dataclasses import replace

import numpy as np
import oracle
import pytest
import torch
from toys import make_head, make_trace, normal, token

from iglens.attribution import Gradient, attribute
from iglens.errors import ArgumentError
from iglens.readout.lens import AffineLens, LogitLens
from iglens.records import ENTROPY, UNITS

DOUBLE = torch.float64
HEAD = make_head(dtype=DOUBLE)
TRACE = make_trace(HEAD, n_layers=4)
LENS = AffineLens(
    "affine", 4, (0, 1, 2, 3), normal(4, 12, 12, seed=5) / 6, normal(4, 12, seed=6)
)


def translated(state, layer):
    """`T_l(h)`, written out."""
    if layer == 4:
        return state
    return state + state @ LENS.weight[layer].T + LENS.bias[layer]


def level(state, layer, unit):
    return oracle.level(oracle.logits(HEAD, translated(state, layer)), [3, 9], unit)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("layers", [None, [2], [1, 3]])
def test_credits_are_written_or_translated_as_the_definition_says(unit, layers):
    found = attribute(TRACE, token(3, 9), lens=LENS, unit=unit, layers=layers)
    ends = [0, *found.layers]
    for segment, (before, after) in enumerate(itertools.pairwise(ends)):
        start, end = TRACE.states[before], TRACE.states[after]
        write = level(end, after, unit) - level(start, after, unit)
        moved = level(start, after, unit) - level(start, before, unit)
        np.testing.assert_allclose(found.writes[:, segment], write, atol=1e-11)
        np.testing.assert_allclose(found.translations[:, segment], moved, atol=1e-11)
    np.testing.assert_allclose(
        found.baseline + (found.writes + found.translations).sum(1), found.final
    )
    assert found.lens == "affine"


@pytest.mark.parametrize("unit", ["probability", "log_odds"])
def test_the_total_is_what_it_is_without_a_lens_but_for_the_baseline(unit):
    plain = attribute(TRACE, token(3), unit=unit)
    through = attribute(TRACE, token(3), unit=unit, lens=LENS)
    np.testing.assert_array_equal(plain.final, through.final)
    np.testing.assert_array_equal(plain.writes[:, -1:], through.writes[:, -1:])
    assert np.abs(plain.levels[:, 1] - through.levels[:, 1]).max() > 1e-3


@pytest.mark.parametrize("baseline", ["zero", "mean", "paper-mean"])
def test_a_baseline_goes_through_the_first_map_of_the_path(baseline):
    found = attribute(TRACE, token(3, 9), lens=LENS, baseline=baseline, layers=[2])
    first = 2 if baseline == "paper-mean" else 0
    states = {
        "zero": torch.zeros_like(TRACE.states[0]),
        "mean": TRACE.causal_mean,
        "paper-mean": TRACE.text_mean[2].expand_as(TRACE.causal_mean),
    }
    expected = level(states[baseline], first, "probability")
    np.testing.assert_allclose(found.baseline, expected, rtol=1e-10)
    np.testing.assert_allclose(found.writes[:, 0], found.credits[:, 0])


def test_the_logit_lens_is_no_lens():
    plain, named = (attribute(TRACE, lens=lens) for lens in (None, LogitLens()))
    np.testing.assert_array_equal(plain.levels, named.levels)
    np.testing.assert_array_equal(named.writes, named.credits)
    assert named.lens == "logit"


def test_a_block_that_writes_nothing_is_given_nothing():
    states = TRACE.states.clone()
    states[2] = states[1]
    found = attribute(make_trace(HEAD, states=states), token(3), lens=LENS)
    assert (found.writes[:, 1] == 0).all()
    assert np.abs(found.credits[:, 1]).min() > 1e-6


def test_gradients_through_a_lens_approach_its_credits():
    exact = attribute(TRACE, token(3), lens=LENS)
    found = attribute(TRACE, token(3), lens=LENS, estimator=Gradient(400))
    np.testing.assert_allclose(found.credits, exact.credits, atol=1e-3)
    assert np.isnan(found.writes).all()


def test_scalars_of_the_distribution_are_split_too():
    found = attribute(TRACE, ENTROPY, lens=LENS)
    start = translated(TRACE.states[1], 2)
    p = oracle.logits(HEAD, start).softmax(-1)
    expected = found.levels[:, 2] - -(p * p.log()).sum(-1).numpy()
    np.testing.assert_allclose(found.writes[:, 1], expected, rtol=1e-9, atol=1e-12)


def test_overshoot_is_flagged_where_it_happens():
    loud = replace(LENS, bias=LENS.bias.clone())
    target = token(int(TRACE.logits[0].argmax()))
    unembed = HEAD.unembed[target.ids[0]]
    loud.bias[2] = 40 * unembed / unembed.norm()
    found = attribute(TRACE, target, lens=loud).select([1])
    (flag,) = [flag for flag in found.flags if flag.kind == "overshoot"]
    assert flag.point == 2
    assert found.depths[0].overshoot > 0
    assert not attribute(TRACE, target).flags


def test_merged_writes_are_unknown_through_a_lens_only():
    found = attribute(TRACE, token(3), lens=LENS).coarsen([2, 3])
    assert np.isnan(found.writes[:, 0]).all()
    assert np.isfinite(found.writes[:, 1:]).all()
    plain = attribute(TRACE, token(3)).coarsen([2, 3])
    np.testing.assert_array_equal(plain.writes, plain.credits)


def test_a_lens_without_the_embedding_says_so():
    short = AffineLens("short", 4, (2,), LENS.weight[2:3], LENS.bias[2:3])
    with pytest.raises(ArgumentError, match="no translator for layer 0"):
        attribute(TRACE, lens=short)
