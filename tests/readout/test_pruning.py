import math

import hypothesis.strategies as st
import oracle
import pytest
import torch
from hypothesis import given, settings
from toys import NORMS, POSTS, Head, make_head, make_norm, normal

from iglens.errors import ArgumentError
from iglens.readout import CalledReadout, TokenLogits, read
from iglens.readout.pruning import (
    TOLERANCE,
    WORTHWHILE,
    Pruner,
    check_tolerance,
)
from iglens.readout.target import leads, level, margin

INF, NAN = torch.inf, torch.nan
POINTS = WORTHWHILE + 100
MORE = 2.0**-11


def prune(head, states, tokens, *, tolerance=TOLERANCE, spared=8, **arguments):
    """Read with the first states spared, which are never pruned."""
    prunable = torch.arange(len(states)) >= spared
    pruner = Pruner(head.readout, tolerance, **arguments)
    return pruner.read(states, tokens, prunable)


def together(found):
    """Probability of all wanted tokens together."""
    every = torch.ones_like(found.logits, dtype=torch.bool)
    return level(margin(found, every), "probability")


def truth(head, states, tokens):
    """The same from whole rows of float64 logits, every part of the head exact."""
    p = oracle.logits(head, states).softmax(1)
    return p.gather(1, tokens.clamp(min=0)).masked_fill(tokens < 0, 0.0).sum(1)


def wanted(points, slots, vocab, *, seed=0):
    """Distinct tokens of every point."""
    scores = normal(points, vocab, seed=seed)
    return scores.topk(min(slots, vocab), 1).indices


@settings(deadline=None, max_examples=60)
@given(
    vocab=st.integers(2, 300),
    slots=st.integers(1, 3),
    norm=st.sampled_from(NORMS),
    post=st.sampled_from(POSTS),
    bias=st.booleans(),
    spread=st.sampled_from([0.5, 4.0, 20.0]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    tolerance=st.sampled_from([TOLERANCE, 1e-12, MORE]),
    seed=st.integers(0, 1000),
)
def test_a_pruned_level_is_an_upper_bound_and_every_other_is_as_it_was(
    vocab, slots, norm, post, bias, spread, dtype, tolerance, seed
):
    head = make_head(
        vocab=vocab,
        norm=norm,
        post=post,
        bias=bias,
        spread=spread,
        dtype=dtype,
        seed=seed,
    )
    states = normal(POINTS, 12, seed=seed, dtype=dtype)
    tokens = wanted(POINTS, slots, vocab, seed=seed)
    found, pruned = prune(head, states, tokens, tolerance=tolerance)
    bound, plain = together(found), read(head.readout, states, tokens)
    assert (bound[pruned] >= truth(head, states, tokens)[pruned]).all()
    assert (bound[pruned] < tolerance).all()
    assert not pruned[:8].any()
    for name in ("logits", "rest", "rest_max"):
        own, other = (getattr(each, name)[~pruned] for each in (found, plain))
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-4)


def test_most_of_what_could_be_pruned_is_pruned():
    head = make_head(vocab=5000, spread=8.0, d_model=24)
    states, tokens = (
        normal(1500, 24, dtype=torch.float32),
        wanted(1500, 1, 5000),
    )
    _, pruned = prune(head, states, tokens)
    could = truth(head, states, tokens) < TOLERANCE
    assert 0.3 < float(could.double().mean()) < 1
    assert int(pruned.sum()) >= 0.9 * int(could[8:].sum()) - 32


@pytest.mark.parametrize("vocab", [97, 5000])
def test_states_that_are_read_give_the_very_numbers_they_gave(vocab):
    head = make_head(vocab=vocab, spread=8.0)
    states, tokens = normal(POINTS, 12, dtype=torch.float32), wanted(POINTS, 2, vocab)
    found, pruned = prune(head, states, tokens)
    plain = read(head.readout, states, tokens)
    assert pruned.any()
    torch.testing.assert_close(
        together(found)[:8], together(plain)[:8], rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("points", [POINTS, 100])
def test_without_tolerance_nothing_changes(points):
    head = make_head(spread=8.0)
    states, tokens = normal(points, 12, dtype=torch.float32), wanted(points, 2, 97)
    plain = read(head.readout, states, tokens)
    tolerances = [0.0] if points == POINTS else [0.0, TOLERANCE]
    for tolerance in tolerances:
        found, pruned = prune(head, states, tokens, tolerance=tolerance)
        assert not pruned.any()
        for name in ("logits", "rest", "rest_max"):
            assert torch.equal(getattr(found, name), getattr(plain, name))


def test_no_pruned_token_leads():
    head = make_head(spread=8.0)
    states, tokens = normal(POINTS, 12, dtype=torch.float32), wanted(POINTS, 2, 97)
    found, pruned = prune(head, states, tokens, tolerance=MORE)
    chosen = torch.ones_like(tokens, dtype=torch.bool)
    first, tied = leads(found, chosen, torch.float32)
    plain, _ = leads(read(head.readout, states, tokens), chosen, torch.float32)
    assert pruned.any()
    assert torch.equal(first, plain)
    assert not tied[pruned].any()


def test_the_most_probable_of_many_is_not_pruned_however_improbable():
    """Of 5,000 equal tokens each has less than the tolerance, and one comes first."""
    head = make_head(vocab=5000, spread=0.0, bias=False)
    states = normal(POINTS, 12, dtype=torch.float32)
    found, pruned = prune(
        head, states, torch.zeros(POINTS, 1).long(), tolerance=2.0**-10.5
    )
    assert float(together(found)[0]) < 2.0**-10.5
    assert not pruned.any()


def planted(gaps, *, height=0.0, dtype=torch.float32):
    """States of which the i-th has the target so far below one strong token.

    A head of two tokens that matter, at logits `height` and `height - gap`.
    """
    unembed = torch.zeros(40, 2)
    unembed[7] = torch.tensor([1.0, 0.0])
    unembed[3] = torch.tensor([1.0, -1.0])
    unembed[8:] = torch.tensor([0.0, 0.0])
    states = torch.stack([torch.full_like(gaps, height), gaps], 1).to(dtype)
    return Head(lambda h: h, unembed.to(dtype)), states


@pytest.mark.parametrize("height", [20.0, 1e3, 1e6])
def test_around_the_tolerance_no_rounding_prunes_what_is_above(height):
    """With logits of a million, float32 has steps of 0.06: as much as 6% of `p`."""
    edge = -math.log(TOLERANCE)
    gaps = torch.linspace(edge - 0.2, edge + 0.2, POINTS)
    head, states = planted(gaps, height=height)
    tokens = torch.full((POINTS, 1), 3)
    found, pruned = prune(head, states, tokens)
    p = truth(head, states, tokens)
    assert (together(found)[pruned] >= p[pruned]).all()
    assert not (pruned & (p >= TOLERANCE)).any()
    certain = p < 0.9 * TOLERANCE
    if height < 1e6:  # where rounding is smaller than that
        assert int((certain & ~pruned).sum()) <= 8 + 32
        assert pruned.any()


def test_the_rounding_of_a_norm_in_float32_is_allowed_for():
    """Most models' norms compute in float32 whatever they are given."""
    exact = make_norm("rms", 1 + 0.5 * normal(12), normal(12))
    head = make_head(vocab=97, spread=60.0, bias=False).but(norm=exact)
    rounded = head.but(norm=lambda h: exact(h.float()).to(h.dtype))
    states, tokens = (
        normal(4 * POINTS, 12, dtype=torch.float32),
        wanted(4 * POINTS, 1, 97),
    )
    found, pruned = prune(rounded, states, tokens)
    z = oracle.logits(head, states)
    rest = z.scatter(1, tokens, -INF).logsumexp(1)
    assert pruned.sum() > POINTS
    ours = (found.logits[:, 0] - found.rest)[pruned]
    assert (ours >= (z.gather(1, tokens)[:, 0] - rest)[pruned]).all()


def test_a_wanted_token_is_no_rival_of_itself():
    head = Head(lambda h: h, torch.tensor([[0.0], [-8.0], [-8.0]]))
    states = torch.ones(POINTS, 1)
    tokens = torch.tensor([[1]] * POINTS)
    found, pruned = prune(head, states, tokens, tolerance=MORE)
    assert pruned.any()
    p = truth(head, states, tokens)
    assert (together(found)[pruned] >= p[pruned]).all()
    assert (together(found)[pruned] <= 1.0001 * p[pruned]).all()


@pytest.mark.parametrize("slots", [0, 1])
@pytest.mark.parametrize("vocab", [1, 2, 3, 5])
def test_vocabularies_smaller_than_what_is_learned_are_read(vocab, slots):
    head = make_head(vocab=vocab, spread=20.0)
    states = normal(POINTS, 12, dtype=torch.float32)
    tokens = torch.zeros(POINTS, slots).long()
    found, pruned = prune(head, states, tokens)
    p = truth(head, states, tokens)
    assert (together(found)[pruned] >= p[pruned]).all()
    torch.testing.assert_close(together(found), p, rtol=0, atol=1e-5)


def test_of_several_wanted_tokens_all_must_be_improbable():
    edge = -math.log(TOLERANCE)
    head, states = planted(torch.full((POINTS,), edge + 3), height=20.0)
    alone, pruned = prune(head, states, torch.full((POINTS, 1), 3))
    assert pruned.sum() == POINTS - 8 - 32
    _, pruned = prune(head, states, torch.tensor([[3, 7]] * POINTS))
    assert not pruned.any()
    _, pruned = prune(head, states, torch.tensor([[3, -1]] * POINTS))
    assert pruned.sum() == POINTS - 8 - 32
    assert isinstance(alone, TokenLogits)


def test_states_that_are_certain_of_their_token_are_read():
    head, states = planted(torch.full((POINTS,), -50.0), height=20.0)
    found, pruned = prune(head, states, torch.full((POINTS, 1), 3))
    assert not pruned.any()
    assert (together(found) > 1 - 1e-15).all()


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_state_that_is_no_number_is_read_and_spoils_no_other(value):
    head = make_head(spread=8.0)
    states, tokens = normal(POINTS, 12, dtype=torch.float32), wanted(POINTS, 1, 97)
    _, pruned = prune(head, states, tokens)
    spoiled = states.clone()
    spoiled[[3, 300], 5] = value
    found, now = prune(head, spoiled, tokens)
    assert not now[[3, 300]].any()
    assert together(found)[[3, 300]].isnan().all()
    others = torch.ones(POINTS, dtype=torch.bool)
    others[[3, 300]] = False
    assert pruned.any()
    assert now.any()
    assert not together(found)[others].isnan().any()


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("place", ["weight", "bias"])
def test_one_logit_that_is_no_number_is_not_overlooked(value, place):
    """Whether or not it belongs to a token that was learned."""
    head = make_head(vocab=400, spread=8.0)
    part = (head.unembed if place == "weight" else head.bias).clone()
    part[123] = value
    head = head.but(**{"unembed" if place == "weight" else "bias": part})
    states, tokens = normal(POINTS, 12, dtype=torch.float32), wanted(POINTS, 1, 100)
    found, pruned = prune(head, states, tokens)
    plain = read(head.readout, states, tokens)
    assert together(plain).isnan().all() or value == INF
    assert torch.equal(together(found).isnan(), together(plain).isnan())
    assert not (pruned & together(plain).isnan()).any()


def test_masked_tokens_prove_nothing_and_have_probability_zero():
    head = make_head(spread=8.0)
    masked = torch.zeros(97, dtype=torch.bool)
    masked[::2] = True
    head = head.but(bias=head.bias.masked_fill(masked, -INF))
    states, tokens = normal(POINTS, 12, dtype=torch.float32), wanted(POINTS, 1, 97)
    tokens[50:60] = 4
    found, pruned = prune(head, states, tokens)
    p = truth(head, states, tokens)
    assert pruned.any()
    assert (together(found)[pruned] >= p[pruned]).all()
    assert (together(found)[50:60] == 0).all()
    torch.testing.assert_close(together(found), p, rtol=0, atol=1e-5)


def test_where_no_token_is_possible_nothing_is_pruned():
    head = make_head(vocab=40)
    head = head.but(bias=torch.full((40,), -INF))
    states, tokens = normal(POINTS, 12, dtype=torch.float32), wanted(POINTS, 1, 40)
    _, pruned = prune(head, states, tokens)
    assert not pruned.any()


def test_what_was_learned_serves_the_next_states_of_the_same_call():
    head = make_head(spread=8.0)
    pruner = Pruner(head.readout, TOLERANCE)
    every = torch.ones(POINTS, dtype=torch.bool)
    for seed in (0, 1):
        states = normal(POINTS, 12, dtype=torch.float32, seed=seed)
        tokens = wanted(POINTS, 1, 97, seed=seed)
        found, pruned = pruner.read(states, tokens, every)
        assert pruned.any()
        assert not pruned.all()
        p = truth(head, states, tokens)
        assert (together(found)[pruned] >= p[pruned]).all()
        torch.testing.assert_close(together(found), p, rtol=0, atol=1e-5)


def test_if_all_could_be_pruned_one_is_read_to_see_whether_weights_are_numbers():
    edge = -math.log(TOLERANCE)
    head, states = planted(torch.full((POINTS,), edge + 3), height=20.0)
    pruner, tokens = Pruner(head.readout, TOLERANCE), torch.full((POINTS, 1), 3)
    every = torch.ones(POINTS, dtype=torch.bool)
    pruner.read(states, tokens, every)
    head.unembed[30] = NAN  # which is not among the tokens that were learned
    found, pruned = pruner.read(states, tokens, every)
    assert not pruned.any()
    assert together(found).isnan().all()
    head.unembed[30] = 0.0
    found, pruned = pruner.read(states, tokens, every)
    assert pruned.tolist() == [False] + [True] * (POINTS - 1)
    torch.testing.assert_close(
        together(found), truth(head, states, tokens), rtol=1e-3, atol=0
    )


def test_heads_that_give_whole_rows_are_read_as_they_are():
    head = make_head(spread=8.0)
    called = CalledReadout(head.readout.logits, 12, 97, torch.float32, torch.float32)
    states, tokens = normal(POINTS, 12, dtype=torch.float32), wanted(POINTS, 1, 97)
    every = torch.ones(POINTS, dtype=torch.bool)
    found, pruned = Pruner(called, TOLERANCE).read(states, tokens, every)
    assert not pruned.any()
    assert torch.equal(found.rest, read(called, states, tokens).rest)


@pytest.mark.parametrize("bad", [-1e-9, 2.0**-10, 0.5, NAN, INF, -INF])
def test_tolerances_that_are_none_are_refused(bad):
    with pytest.raises(ArgumentError, match=r"`tolerance` is .*2\*\*-24"):
        check_tolerance(bad)


@pytest.mark.parametrize("good", [0.0, TOLERANCE, 9.7e-4])
def test_tolerances_below_a_thousandth_are_taken(good):
    assert check_tolerance(good) == good
