"""Attributions in which small levels were finished early, against those in full."""

import math
from dataclasses import replace

import numpy as np
import oracle
import pytest
import torch
from toys import make_head, make_trace

from iglens import ENTROPY, Target, attribute
from iglens.attribution import Gradient, attribute_many
from iglens.errors import ArgumentError

ROWS = 200
TOLERANCE = 2.0**-24


def toy(rows=ROWS, *, post="identity", bias=True, dtype=torch.float32, seed=0):
    """A trace of many positions, with logits that spread widely."""
    head = make_head(
        vocab=300, spread=8.0, post=post, bias=bias, dtype=dtype, seed=seed
    )
    return head, make_trace(head, rows=rows, n_layers=5, seed=seed)


def both(trace, targets=None, **options):
    """With the default tolerance, and without any."""
    options = {"diagnostics": False} | options
    return (
        attribute(trace, targets, **options),
        attribute(trace, targets, **options, tolerance=0.0),
    )


@pytest.mark.parametrize("post", ["identity", "scale"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pruned_equals_unpruned_within_the_tolerance(post, bias, dtype):
    head, trace = toy(post=post, bias=bias, dtype=dtype)
    found, plain = both(trace)
    assert found.pruned.any()
    assert not plain.pruned.any()
    assert (found.readout.pruned_below, plain.readout.pruned_below) == (TOLERANCE, 0.0)
    gap = np.abs(found.levels - plain.levels)
    assert (gap[found.pruned] <= TOLERANCE).all()
    np.testing.assert_allclose(
        found.levels[~found.pruned], plain.levels[~found.pruned], rtol=1e-6, atol=1e-12
    )
    ids = trace.token_ids[1:]
    z = oracle.logits(head, trace.states.flatten(0, 1)).view(6, ROWS, -1)
    truth = z.softmax(-1).gather(2, ids.expand(6, -1)[:, :, None])[:, :, 0].T.numpy()
    assert (found.levels[found.pruned] >= truth[found.pruned]).all()
    assert (found.levels[found.pruned] < TOLERANCE).all()
    assert (found.top1 == plain.top1).all()


def test_the_ends_of_paths_are_never_pruned_and_credits_add_up():
    _, trace = toy()
    found, plain = both(trace)
    assert (plain.levels[:, [0, -1]] < TOLERANCE).any()
    assert not found.pruned[:, [0, -1]].any()
    np.testing.assert_allclose(
        found.levels[:, [0, -1]], plain.levels[:, [0, -1]], rtol=1e-6, atol=0
    )
    assert np.abs(found.completeness).max() < 1e-15
    assert np.array_equal(found.credits, np.diff(found.levels, axis=1))


def test_credits_next_to_pruned_points_have_no_sign_where_both_ends_are_small():
    _, trace = toy()
    found, plain = both(trace)
    unsigned = found.unsigned
    assert unsigned.any()
    assert (np.abs(plain.credits[unsigned]) < TOLERANCE).all()
    assert (np.abs(found.credits[unsigned]) < TOLERANCE).all()
    beside = found.pruned[:, 1:] | found.pruned[:, :-1]
    assert not (unsigned & ~beside).any()
    told = beside & ~unsigned
    assert told.any()
    assert (np.sign(found.credits[told]) == np.sign(plain.credits[told])).all()


def test_depths_move_by_no_more_than_the_tolerance_could():
    _, trace = toy()
    found, plain = both(trace)
    large = np.abs(plain.final - plain.baseline) > 1e-2
    assert large.any()
    for row in np.flatnonzero(large):
        a, b = found.depths[row], plain.depths[row]
        assert (a.commit, a.onset_net, a.onset_mass) == (
            b.commit,
            b.onset_net,
            b.onset_mass,
        )
        assert a.churn == pytest.approx(b.churn, abs=6 * TOLERANCE / 1e-2 * 2)


@pytest.mark.parametrize(
    "options",
    [
        {"diagnostics": True},
        {"unit": "log_probability"},
        {"unit": "log_odds"},
        {"unit": "logit"},
        {"estimator": Gradient(2)},
        {"tolerance": 0.0},
    ],
)
def test_what_needs_whole_rows_is_never_pruned(options):
    _, trace = toy()
    found = attribute(trace, **({"diagnostics": False} | options))
    assert not found.pruned.any()
    assert found.readout.pruned_below == 0.0


def test_few_rows_are_never_pruned():
    _, trace = toy(rows=50)
    found = attribute(trace, diagnostics=False)
    assert not found.pruned.any()


@pytest.mark.parametrize("exact", ["contrast", "entropy"])
def test_positions_of_contrasts_and_scalars_are_read_in_full(exact):
    _, trace = toy()
    other = (
        Target((7,), "7").versus(Target((9,), "9")) if exact == "contrast" else ENTROPY
    )
    own = [Target((int(i),), "own") for i in trace.token_ids[1:]]
    half = ROWS // 4
    pairs = [(at + 1, own[at]) for at in range(ROWS)]
    pairs += [(at + 1, other) for at in range(half)]
    found, plain = both(trace, pairs)
    np.testing.assert_allclose(found.levels, plain.levels, rtol=1e-6, atol=TOLERANCE)
    shared = found.positions <= half
    assert not found.pruned[shared].any()
    assert found.pruned[~shared].any() or exact == "entropy"


def test_positions_are_pruned_only_if_all_their_targets_are_improbable():
    _, trace = toy()
    own = [Target((int(i),), "own") for i in trace.token_ids[1:]]
    best = trace.readout.logits(trace.states[3]).argmax(1)
    pairs = [(at + 1, own[at]) for at in range(ROWS)]
    pairs += [(at + 1, Target((int(best[at]),), "best")) for at in range(ROWS)]
    found, plain = both(trace, pairs)
    np.testing.assert_allclose(found.levels, plain.levels, rtol=1e-6, atol=TOLERANCE)
    assert not found.pruned[:, 3].any()
    assert found.pruned.any()
    for at in range(ROWS):
        first, second = np.flatnonzero(found.positions == at + 1)
        assert np.array_equal(found.pruned[first], found.pruned[second])


def test_sets_are_pruned_by_their_sum():
    _, trace = toy()
    target = Target((3, 8, 11), "three")
    found, plain = both(trace, target)
    assert found.pruned.any()
    assert (np.abs(found.levels - plain.levels) <= TOLERANCE).all()
    assert (found.levels[found.pruned] * 1.0001 >= plain.levels[found.pruned]).all()


def test_what_one_call_learns_does_not_reach_the_next():
    _, trace = toy()
    _, another = toy(seed=5)
    alone = attribute(trace, diagnostics=False)
    attribute(another, diagnostics=False)
    again = attribute(trace, diagnostics=False)
    assert np.array_equal(alone.levels, again.levels)
    assert np.array_equal(alone.pruned, again.pruned)


def test_texts_read_together_are_pruned_together():
    head, trace = toy()
    second = make_trace(head, rows=ROWS, n_layers=5, seed=3)
    second = replace(second, readout=trace.readout)
    found = attribute_many([trace, second], [None, None], diagnostics=False)
    for each, own in zip(found, (trace, second), strict=True):
        plain = attribute(own, diagnostics=False, tolerance=0.0)
        assert each.pruned.any()
        assert each.readout.pruned_below == TOLERANCE
        assert (np.abs(each.levels - plain.levels) <= TOLERANCE + 1e-6).all()


def test_fewer_layers_and_rows_keep_what_was_pruned():
    _, trace = toy()
    found = attribute(trace, diagnostics=False)
    rows = np.flatnonzero(found.pruned.any(1))[:3].tolist()
    some = found.select(rows)
    assert np.array_equal(some.pruned, found.pruned[rows])
    coarse = some.coarsen([2, 4])
    assert np.array_equal(coarse.pruned, some.pruned[:, [0, 2, 4, 5]])


@pytest.mark.parametrize("bad", [-1.0, 2.0**-10, math.nan])
def test_tolerances_that_are_none_are_refused(bad):
    _, trace = toy(rows=3)
    with pytest.raises(ArgumentError, match="`tolerance` is "):
        attribute(trace, tolerance=bad)


@pytest.mark.parametrize("by", ["layer", "sublayer"])
def test_real_text_on_the_embedded_model(embedded, by):
    """Against whole rows of float64 logits, norm included, of every third layer."""
    decoder = embedded
    text = (
        "The lens is older than the telescope. Glass makers in Venice ground small "
        "discs of clear glass for readers whose eyes had grown weak, and for three "
        "hundred years nobody thought of holding two of them in a row."
    )
    ids = decoder.encode(text)
    trace = decoder.trace(ids, range(1, len(ids)), by=by)
    found, plain = both(trace, by=by)
    inner = found.pruned[:, 1:-1]
    assert 0.2 < inner.mean() < 0.6
    assert (np.abs(found.levels - plain.levels)[found.pruned] <= TOLERANCE).all()
    np.testing.assert_allclose(
        found.levels[~found.pruned], plain.levels[~found.pruned], rtol=1e-4, atol=1e-12
    )
    np.testing.assert_allclose(found.final, plain.final, rtol=1e-5, atol=0)
    np.testing.assert_allclose(found.baseline, plain.baseline, rtol=1e-5, atol=0)
    assert np.abs(found.completeness).max() < 1e-15
    if by == "layer":
        exact = attribute(
            trace, diagnostics=False, tolerance=0.0, precision=torch.float64
        )
        assert (found.levels >= exact.levels)[found.pruned].all()
        low = exact.levels[:, 1:-1] < 0.99 * TOLERANCE
        assert inner.sum() > 0.95 * low.sum() - 32
