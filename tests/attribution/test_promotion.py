"""Promoted or less opposed, sharper or of another mind: both splits of log-odds."""

import json
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from toys import NORMS, POSTS, LargestTensor, make_head, make_states, make_trace, normal
from toys import token as one

from iglens.attribution import attribute, promotion
from iglens.errors import ArgumentError, FidelityError
from iglens.readout.lens import AffineLens

DOUBLE = torch.float64
SPLITS = ("promotion", "competition", "temperature", "preference")


def log_odds(z, ids):
    rest = [v for v in range(z.shape[-1]) if v not in ids]
    return z[..., ids].logsumexp(-1) - z[..., rest].logsumexp(-1)


def slow(head, states, ids):
    """Both splits from their definitions: whole rows in float64, rows x segments."""
    z = oracle.logits(head, states)
    z = z - z.mean(-1, keepdim=True)
    rest = [v for v in range(z.shape[-1]) if v not in ids]
    own, rivals = z[..., ids].logsumexp(-1), z[..., rest].logsumexp(-1)
    s = z.square().mean(-1, keepdim=True).sqrt()
    u = z / s
    a, b = slice(None, -1), slice(1, None)
    aa, ab = log_odds(s[a] * u[a], ids), log_odds(s[a] * u[b], ids)
    ba, bb = log_odds(s[b] * u[a], ids), log_odds(s[b] * u[b], ids)
    scale_first = (ba - aa, bb - ba)
    direction_first = (bb - ab, ab - aa)
    found = {
        "promotion": own.diff(dim=0),
        "competition": -rivals.diff(dim=0),
        "temperature": (scale_first[0] + direction_first[0]) / 2,
        "preference": (scale_first[1] + direction_first[1]) / 2,
        "interaction": direction_first[0] - scale_first[0],
    }
    return {name: values.T.numpy() for name, values in found.items()}


@pytest.mark.parametrize("budget", [1, 2**26])
@pytest.mark.parametrize("post", POSTS)
@pytest.mark.parametrize("norm", NORMS)
def test_both_splits_are_those_of_the_definition(norm, post, budget):
    head = make_head(norm=norm, post=post, dtype=DOUBLE)
    trace = make_trace(head)
    found = promotion(trace, [one(5), one(3, 41)], memory_budget=budget)
    for row, ids in ((0, [5]), (1, [3, 41])):
        for name, expected in slow(head, trace.states, ids).items():
            got = getattr(found, name)[row::2]
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-11)
    z = oracle.logits(head, trace.states)
    np.testing.assert_allclose(found.mean[::2], z.mean(-1).T, atol=1e-12)
    np.testing.assert_allclose(found.spread[::2], z.std(-1, correction=0).T, rtol=1e-9)


@given(seed=st.integers(0, 10_000), vocab=st.integers(2, 9), spread=st.floats(0.01, 20))
@settings(deadline=None, max_examples=40)
def test_both_splits_add_up_to_the_credit(seed, vocab, spread):
    head = make_head(vocab=vocab, d_model=4, spread=spread, dtype=DOUBLE, seed=seed)
    trace = make_trace(head, states=make_states(4, 2, 4, dtype=DOUBLE, seed=seed))
    found = promotion(trace, one(seed % vocab))
    size = np.abs(found.levels).max() + np.abs(found.own).max()
    credits = attribute(trace, one(seed % vocab), unit="log_odds").credits
    np.testing.assert_allclose(found.credits, credits, atol=1e-13 * size)
    for one_part, other in (SPLITS[:2], SPLITS[2:]):
        total = getattr(found, one_part) + getattr(found, other)
        np.testing.assert_allclose(total, credits, atol=1e-12 * size)
    for missed in found.completeness.values():
        assert np.abs(missed).max() < 1e-12 * size


def test_logits_that_are_only_scaled_change_temperature_alone():
    head = make_head(norm="none", bias=False, dtype=DOUBLE)
    start = normal(1, 2, 12, seed=3)
    trace = make_trace(head, states=torch.cat([start, 2 * start, start / 3]))
    found = promotion(trace, one(5))
    np.testing.assert_allclose(found.preference, 0.0, atol=1e-12)
    np.testing.assert_allclose(found.temperature, found.credits, atol=1e-12)
    assert np.abs(found.temperature).min() > 1e-3
    np.testing.assert_allclose(found.interaction, 0.0, atol=1e-12)


def test_another_direction_of_the_same_spread_is_preference_alone():
    head = make_head(vocab=12, norm="none", bias=False, dtype=DOUBLE)
    head = head.but(unembed=torch.eye(12, dtype=DOUBLE))
    start = normal(1, 1, 12, seed=3)
    trace = make_trace(head, states=torch.cat([start, start.roll(1, -1)]))
    found = promotion(trace, one(5))
    np.testing.assert_allclose(found.temperature, 0.0, atol=1e-12)
    assert np.abs(found.preference).min() > 1e-2


def test_a_rival_that_falls_is_competition_and_a_target_that_rises_promotion():
    head = make_head(vocab=1000, norm="none", bias=False, dtype=DOUBLE)
    head = head.but(unembed=torch.eye(1000, dtype=DOUBLE))
    start = torch.zeros(1, 1, 1000, dtype=DOUBLE)
    start[..., 7], start[..., 1] = 12.0, 5.0
    fallen, risen = start.clone(), start.clone()
    fallen[..., 7] -= 10.0
    risen[..., 1] += 10.0
    for states, lead in ((fallen, "competition"), (risen, "promotion")):
        head_trace = make_trace(head, states=torch.cat([start, states]))
        found = promotion(head_trace, one(1))
        share = getattr(found, lead)[0, 0] / found.credits[0, 0]
        assert 0.95 < share < 1.05
        assert found.credits[0, 0] > 4


def test_a_constant_on_all_logits_changes_nothing_but_the_mean():
    head = make_head(dtype=DOUBLE)
    lifted = head.but(unembed=head.unembed + 3 * normal(12, seed=9), bias=head.bias + 7)
    plain, other = (promotion(make_trace(h), one(5)) for h in (head, lifted))
    for name in ("levels", "own", "rivals", "spread", *SPLITS, "interaction"):
        np.testing.assert_allclose(
            getattr(plain, name), getattr(other, name), atol=1e-10
        )
    assert np.abs(plain.mean - other.mean).max() > 10


@given(order=st.permutations(range(11)))
@settings(deadline=None, max_examples=15)
def test_the_order_of_the_vocabulary_changes_nothing(order):
    head = make_head(vocab=11, d_model=5, dtype=DOUBLE)
    moved = head.but(unembed=head.unembed[order], bias=head.bias[order])
    states = make_states(3, 2, 5, dtype=DOUBLE)
    a = promotion(make_trace(head, states=states), one(order[4]))
    b = promotion(make_trace(moved, states=states), one(4))
    for name in ("own", "rivals", "temperature", "preference"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=1e-11)


def test_masked_tokens_are_left_out_of_mean_and_spread():
    head = make_head(dtype=DOUBLE)
    bias = head.bias.clone()
    bias[:7] = -torch.inf
    trace = make_trace(head.but(bias=bias))
    shorter = head.but(unembed=head.unembed[7:], bias=head.bias[7:])
    expected = slow(shorter, trace.states, [50 - 7])
    found = promotion(trace, one(50))
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(found, name), values, atol=1e-10)


def test_equal_logits_have_a_temperature_of_none():
    head = make_head(bias=False, dtype=DOUBLE)
    found = promotion(make_trace(head, rows=2), one(5), baseline="zero")
    assert np.isnan(found.temperature[:, 0]).all()
    assert np.isnan(found.preference[:, 0]).all()
    assert np.isfinite(found.temperature[:, 1:]).all()
    assert np.isfinite(found.promotion).all()
    np.testing.assert_allclose(found.levels[:, 0], -np.log(96))
    assert {(f.row, f.point, f.kind) for f in found.subject.flags} == {
        (row, 0, "flat_logits") for row in range(2)
    }
    assert np.abs(found.completeness["promotion"]).max() < 1e-12


def test_single_precision_is_close_to_the_truth():
    head = make_head(vocab=500, spread=4.0)
    trace = make_trace(head)
    found = promotion(trace, one(5))
    precise = head.but(unembed=head.unembed.double(), bias=head.bias.double())
    for name, values in slow(precise, trace.states.double(), [5]).items():
        np.testing.assert_allclose(getattr(found, name), values, rtol=1e-5, atol=2e-4)
    for missed in found.completeness.values():
        assert np.abs(missed).max() < 1e-12


def test_a_lens_a_baseline_and_a_coarse_path_are_taken():
    head = make_head(dtype=DOUBLE)
    lens = AffineLens(
        "affine", 4, (0, 1, 2, 3), normal(4, 12, 12, seed=5) / 6, normal(4, 12, seed=6)
    )
    trace = make_trace(head)
    given = {"lens": lens, "baseline": "mean", "layers": [2]}
    found = promotion(trace, one(5), **given)
    expected = attribute(trace, one(5), unit="log_odds", **given)
    np.testing.assert_allclose(found.levels, expected.levels, atol=1e-12)
    assert found.subject.segments == expected.segments
    assert found.subject.lens == "affine"
    assert found.subject.baseline_kind == "mean"
    np.testing.assert_array_equal(found.subject.fidelity, expected.fidelity)


def test_a_state_that_is_not_finite_spoils_its_neighbours_only():
    trace = make_trace()
    odd = trace.states.clone()
    odd[2, 1] = torch.nan
    bad = trace.with_states(odd, trace.logits)
    found = promotion(bad, one(5), strict=False)
    assert [(f.row, f.point) for f in found.subject.flags] == [(1, 2)]
    spoilt = np.zeros((3, 4), bool)
    spoilt[1, 1:3] = True
    for name in SPLITS:
        np.testing.assert_array_equal(np.isnan(getattr(found, name)), spoilt)
    assert "nan" in str(found)
    json.dumps(found.to_json(), allow_nan=False)


def test_what_does_not_fit_is_refused():
    trace = make_trace()
    with pytest.raises(ArgumentError, match="a contrast; this takes tokens"):
        promotion(trace, one(5).versus(one(3)))
    with pytest.raises(ArgumentError, match="no distribution"):
        promotion(replace(trace, measure="logit"), one(5))
    moved = trace.with_states(trace.states, trace.logits.roll(1, 1))
    with pytest.raises(FidelityError):
        promotion(moved, one(5))


def test_no_row_of_the_vocabulary_is_held():
    head = make_head(vocab=20_000, d_model=16)
    trace = make_trace(head, rows=4)
    with LargestTensor() as largest:
        promotion(trace, one(5), memory_budget=2**20)
    assert largest.bytes <= 2**20, largest.made_by


def test_the_json_form_and_the_table_say_what_the_result_says():
    found = promotion(make_trace(), [one(5), one(3)])
    document = found.to_json()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["schema"] == "iglens.promotion/1"
    assert document["unit"] == "log_odds"
    assert "mean over the vocabulary" in document["centring"]
    assert "standard deviation" in document["scale"]
    assert document["promotion"] == found.promotion.tolist()
    assert set(document["completeness"]) == {"promotion", "temperature"}
    table = found.to_arrow().to_pandas()
    assert len(table) == found.credits.size
    for name in SPLITS:
        np.testing.assert_array_equal(table[name], getattr(found, name).ravel())
    np.testing.assert_allclose(
        table.groupby("row")["credit"].sum(), found.levels[:, -1] - found.levels[:, 0]
    )
    assert table["target"].tolist()[::4] == ["<5>", "<3>"] * 3


def test_the_sentences_give_both_splits_and_the_conventions():
    found = promotion(make_trace(), one(5))
    first, *_, last = str(found).splitlines()
    assert first == (
        f"'<5>' at 1: {found.levels[0, 0]:.2f} → {found.levels[0, -1]:.2f}; "
        f"target promoted {found.promotion[0].sum():+.2f}, "
        f"rivals demoted {found.competition[0].sum():+.2f}; "
        f"temperature {found.temperature[0].sum():+.2f}, "
        f"preference {found.preference[0].sum():+.2f}"
    )
    assert "centred by the mean over the vocabulary" in last
    best = int(np.abs(found.credits[0]).argmax())
    assert f"layers {best} and {best + 1}: {found.credits[0, best]:+.2f};" in str(found)
    warned = replace(found, subject=replace(found.subject, warnings=("Beware.",)))
    assert str(warned).endswith("Warning: Beware.")


@pytest.mark.embedded
def test_paris_is_promoted(embedded):
    ids = embedded.encode("The capital of France is")
    trace = embedded.trace(ids, [len(ids)])
    found = promotion(trace, embedded.target(" Paris", ids))
    for missed in found.completeness.values():
        assert np.abs(missed).max() < 1e-9
    assert found.credits[0].sum() > 10
    assert found.promotion[0, -1] > 0
