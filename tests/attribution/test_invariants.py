"""What must hold whatever the numbers are, each with a construction that can fail."""

import itertools
from contextlib import contextmanager
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from toys import (
    NORMS,
    POSTS,
    make_head,
    make_states,
    make_trace,
    normal,
    tiny_decoder,
    token,
)

from iglens.attribution import BASELINES, Gradient, Observed, attribute
from iglens.readout import MEMORY_BUDGET
from iglens.records import UNITS

ESTIMATORS = (Observed(), Gradient(3, "trapezoid"))
DOUBLE = torch.float64


def assert_same_credits(one, other, atol=1e-12):
    np.testing.assert_allclose(one.levels, other.levels, atol=atol)
    np.testing.assert_allclose(one.credits, other.credits, atol=atol)


# --- paths -------------------------------------------------------------------------


@st.composite
def questions(draw):
    """Anything that may be asked of a trace of seven layers."""
    return {
        "head": {
            "norm": draw(st.sampled_from(NORMS)),
            "post": draw(st.sampled_from(POSTS)),
            "bias": draw(st.booleans()),
            "vocab": draw(st.sampled_from([2, 3, 53])),
            "spread": draw(st.sampled_from([0.3, 1.0, 4.0])),
            "dtype": draw(st.sampled_from([torch.float32, DOUBLE])),
            "seed": draw(st.integers(0, 99)),
        },
        "layers": sorted(draw(st.sets(st.integers(0, 7)))),
        "baseline": draw(st.sampled_from(BASELINES)),
        "unit": draw(st.sampled_from(UNITS)),
        "token": draw(st.integers(0, 1)),
    }


@settings(deadline=None, max_examples=80)
@given(asked=questions())
def test_any_subset_of_layers_has_the_same_total(asked):
    """Coarsening sums what it merges; refining never changes the total."""
    trace = make_trace(make_head(**asked["head"]), n_layers=7, rows=2)
    target = token(asked["token"])
    options = {"baseline": asked["baseline"], "unit": asked["unit"]}
    fine = attribute(trace, target, **options)
    coarse = attribute(trace, target, layers=asked["layers"], **options)
    assert np.abs(coarse.completeness).max() <= 1e-12
    rounding = 1e-5 if asked["head"]["dtype"] == torch.float32 else 1e-11
    if asked["unit"] != "probability":
        rounding *= 10
    np.testing.assert_allclose(coarse.final, fine.final, atol=rounding)
    if asked["baseline"] == "paper-mean":  # depends on the layers; see `Baseline`
        return
    merged = fine.coarsen([layer for layer in coarse.layers if layer])
    assert merged.segments == coarse.segments
    assert_same_credits(coarse, merged, atol=rounding)
    np.testing.assert_allclose(
        coarse.credits.sum(1), fine.credits.sum(1), atol=rounding
    )


@settings(deadline=None, max_examples=30)
@given(
    estimator=st.sampled_from(ESTIMATORS),
    diagnostics=st.booleans(),
    budget=st.sampled_from([1, 5_000, 100_000, MEMORY_BUDGET]),
)
def test_memory_budgets_change_nothing(estimator, diagnostics, budget):
    trace = make_trace(make_head(vocab=131, dtype=DOUBLE), rows=5)
    targets = [token(3), token(130, 64)]
    options = {"estimator": estimator, "diagnostics": diagnostics}
    small = attribute(trace, targets, memory_budget=budget, **options)
    large = attribute(trace, targets, **options)
    assert_same_credits(small, large, atol=1e-14)
    np.testing.assert_array_equal(small.rank, large.rank)
    np.testing.assert_array_equal(small.top1, large.top1)
    np.testing.assert_array_equal(small.top_ids, large.top_ids)
    np.testing.assert_allclose(small.lens_kl, large.lens_kl, atol=1e-13)


def test_positions_together_give_what_each_gives_alone():
    trace = make_trace(make_head(dtype=DOUBLE), rows=6)
    together = attribute(trace, [token(3), token(5, 7)], baseline="mean")
    for row in range(6):
        alone = replace(
            trace,
            states=trace.states[:, [row]],
            logits=trace.logits[[row]],
            positions=trace.positions[[row]],
            causal_mean=trace.causal_mean[[row]],
        )
        found = attribute(alone, [token(3), token(5, 7)], baseline="mean")
        assert_same_credits(found, together.select([2 * row, 2 * row + 1]), 1e-14)


# --- blocks that do nothing, or undo one another -----------------------------------


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("at", [1, 3, 5])
def test_an_inserted_block_that_writes_nothing_gets_no_credit(unit, estimator, at):
    head = make_head(dtype=DOUBLE)
    states = make_states(5, 3, 12, dtype=DOUBLE)
    longer = torch.cat([states[:at], states[at - 1 : at], states[at:]])
    options = {"unit": unit, "estimator": estimator}
    found = attribute(make_trace(head, states=longer), token(3), **options)
    plain = attribute(make_trace(head, states=states), token(3), **options)
    np.testing.assert_allclose(found.credits[:, at - 1], 0.0, atol=1e-14)
    np.testing.assert_allclose(
        np.delete(found.credits, at - 1, axis=1), plain.credits, atol=1e-13
    )


@pytest.mark.parametrize("unit", UNITS)
def test_what_is_written_and_erased_is_credited_and_taken_back(unit):
    states = make_states(4, 3, 12, dtype=DOUBLE)
    states[3] = states[1]
    found = attribute(
        make_trace(make_head(dtype=DOUBLE), states=states), token(3), unit=unit
    )
    np.testing.assert_allclose(found.credits[:, 1], -found.credits[:, 2], atol=1e-13)
    assert np.abs(found.credits[:, 1]).min() > 1e-6


# --- other names for the same thing ------------------------------------------------


def rotation(size):
    """A random orthogonal matrix."""
    return torch.linalg.qr(normal(size, size, seed=8)).Q


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_basis_of_the_residual_stream_does_not_matter(unit, estimator):
    """RMSNorm with its gain folded into the unembedding commutes with rotations."""
    gain = 1 + 0.5 * normal(12, seed=1)
    plain = make_head(norm="rms", dtype=DOUBLE)
    folded = plain.but(
        norm=lambda h: h * (h.square().mean(-1, keepdim=True) + 1e-6).rsqrt(),
        unembed=plain.unembed * gain,
    )
    turned = folded.but(unembed=folded.unembed @ rotation(12).T)
    states = make_states(5, 3, 12, dtype=DOUBLE)
    options = {"unit": unit, "estimator": estimator}
    expected = attribute(make_trace(plain, states=states), token(3), **options)
    for head, seen in (
        (folded, states),
        (turned, states @ rotation(12).T),
    ):
        found = attribute(make_trace(head, states=seen), token(3), **options)
        assert_same_credits(found, expected)
    wrong = attribute(make_trace(turned, states=states), token(3), **options)
    assert np.abs(wrong.credits - expected.credits).max() > 1e-3


@pytest.mark.parametrize("unit", UNITS[:3])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_one_vector_added_to_every_row_of_the_unembedding_does_not_matter(
    unit, estimator
):
    head = make_head(dtype=DOUBLE)
    moved = head.but(unembed=head.unembed + normal(12, seed=9))
    states = make_states(5, 3, 12, dtype=DOUBLE)
    ours, theirs = (
        attribute(
            make_trace(h, states=states),
            [token(3), token(7, 90)],
            unit=unit,
            estimator=estimator,
        )
        for h in (head, moved)
    )
    assert_same_credits(ours, theirs)
    np.testing.assert_array_equal(ours.rank, theirs.rank)
    np.testing.assert_allclose(ours.lens_kl, theirs.lens_kl, atol=1e-12)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_token_split_into_two_halves_keeps_its_credits_as_a_set(unit, estimator):
    head = make_head(dtype=DOUBLE)
    half = head.bias.clone()
    half[3] -= np.log(2.0)
    split = head.but(
        unembed=torch.cat([head.unembed, head.unembed[3:4]]),
        bias=torch.cat([half, half[3:4]]),
    )
    states = make_states(5, 3, 12, dtype=DOUBLE)
    options = {"unit": unit, "estimator": estimator}
    whole = attribute(make_trace(head, states=states), [token(3), token(7)], **options)
    halves = attribute(
        make_trace(split, states=states), [token(3, 97), token(7)], **options
    )
    assert_same_credits(halves, whole)
    np.testing.assert_allclose(halves.lens_kl, whole.lens_kl, atol=1e-12)


# --- sums over the vocabulary ------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("apart", [True, False])
def test_credits_of_a_layer_sum_to_zero_over_the_vocabulary(estimator, apart):
    """Every token has its own normaliser, made of all the others."""
    trace = make_trace(make_head(vocab=53, dtype=DOUBLE), rows=2)
    every = [token(i) for i in range(53)]
    if apart:
        parts = [attribute(trace, one, estimator=estimator) for one in every]
    else:
        parts = [attribute(trace, every, estimator=estimator)]
    credits = np.concatenate([part.credits for part in parts])
    levels = np.concatenate([part.levels for part in parts])
    np.testing.assert_allclose(levels.sum(0), 2.0, rtol=1e-13)  # two positions
    np.testing.assert_allclose(credits.sum(0), 0.0, atol=1e-13)
    assert np.abs(credits).max() > 1e-2


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_set_and_its_complement_have_opposite_credits(estimator):
    trace = make_trace(make_head(vocab=11, dtype=DOUBLE))
    some, others = token(0, 4, 9), token(1, 2, 3, 5, 6, 7, 8, 10)
    found = attribute(trace, [some, others], estimator=estimator)
    np.testing.assert_allclose(found.credits[::2], -found.credits[1::2], atol=1e-14)
    odds = attribute(trace, [some, others], estimator=estimator, unit="log_odds")
    np.testing.assert_allclose(odds.levels[::2], -odds.levels[1::2], atol=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_set_is_credited_what_its_tokens_are(estimator):
    trace = make_trace(make_head(dtype=DOUBLE))
    found = attribute(trace, [token(3, 8), token(3), token(8)], estimator=estimator)
    whole, one, other = (found.credits[i::3] for i in range(3))
    np.testing.assert_allclose(whole, one + other, atol=1e-14)


# --- real models -------------------------------------------------------------------


@contextmanager
def skipped(blocks):
    """While open, these blocks hand their input on."""
    with pytest.MonkeyPatch.context() as patch:
        for block in blocks:
            patch.setattr(block, "forward", handing_on(block.forward))
        yield


def handing_on(forward):
    def instead(hidden_states, *args, **kwargs):
        output = forward(hidden_states, *args, **kwargs)
        whole = isinstance(output, torch.Tensor)
        return hidden_states if whole else (hidden_states, *output[1:])

    return instead


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "phi"])
def test_the_level_of_a_layer_is_the_model_with_later_blocks_skipped(family):
    decoder = tiny_decoder(family, dtype=DOUBLE)
    ids = [5, 17, 60, 3, 88]
    found = attribute(decoder.trace(ids, [2, 4, 5]), token(3, 41))
    model = decoder.model
    blocks = [model.get_submodule(name) for name in decoder.verified.stream.names]
    assert len(blocks) == 3
    for layer in range(4):
        with skipped(blocks[layer:]), torch.no_grad():
            logits = model(torch.tensor([ids]), use_cache=False).logits[0]
        p = logits.softmax(-1)[:, [3, 41]].sum(-1)[[1, 3, 4]]
        np.testing.assert_allclose(found.levels[:, layer], p, rtol=1e-10)
        if layer == 2:
            last_effect = found.model_value - p.numpy()
    np.testing.assert_allclose(found.credits[:, -1], last_effect, atol=1e-12)
    assert np.abs(last_effect).min() > 1e-6


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_credits_of_a_real_model_add_up_along_every_path(family):
    decoder = tiny_decoder(family)
    trace = decoder.trace([5, 17, 60, 3, 88], range(1, 6))
    totals = []
    for size in range(4):
        for layers in itertools.combinations([1, 2, 3], size):
            found = attribute(trace, token(3), layers=layers)
            assert np.abs(found.completeness).max() <= 1e-12
            totals.append(found.credits.sum(1))
    np.testing.assert_allclose(totals, np.broadcast_to(totals[0], (8, 5)), atol=1e-6)
