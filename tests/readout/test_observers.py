import hypothesis.strategies as st
import oracle
import pytest
import torch
from hypothesis import given, settings
from toys import POSTS, Head, make_head, make_states, normal

from iglens.readout import MEMORY_BUDGET, CalledReadout, read
from iglens.readout.observers import Divergence, Moments, Rank, Slope, Top

INF = torch.inf

# Small whole numbers, so that equal logits are equal to the last bit.
whole_logits = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=150)


def watched(z, tokens, *observers, budget=0, dtype=torch.float64):
    """The observers after reading states whose logits are the rows of `z`."""
    readout = CalledReadout(
        tail=lambda states: states,
        d_model=z.shape[1],
        vocab_size=z.shape[1],
        dtype=dtype,
        precision=dtype,
    )
    read(readout, z.to(dtype), tokens, observers=observers, memory_budget=budget)
    return observers


def no_tokens(points):
    return torch.zeros((points, 0), dtype=torch.int64)


@settings(deadline=None, max_examples=80)
@given(row=whole_logits, data=st.data())
def test_rank_counts_larger_logits_and_lower_ids_among_equals(row, data):
    z = torch.tensor([row], dtype=torch.float64)
    ids = st.sets(st.integers(0, len(row) - 1), max_size=5)
    tokens = torch.tensor([[*data.draw(ids), -1]])
    (rank,) = watched(z, tokens, Rank(tokens), dtype=torch.float32)
    expected = [oracle.rank(z[0], token) for token in tokens[0, :-1].tolist()]
    assert rank.rank[0, :-1].tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_ranks_of_all_tokens_are_a_permutation(dtype):
    """Also of equal tokens, whose logits two products may round differently."""
    unembed = normal(3, 40).repeat(23, 1)
    head = Head(lambda h: h, unembed.to(dtype))
    tokens = torch.arange(69).repeat(5, 1)
    rank = Rank(tokens)
    read(head.readout, normal(5, 40, dtype=dtype), tokens, observers=[rank])
    expected = torch.arange(1, 70).expand(5, -1)
    assert torch.equal(rank.rank.sort(1).values, expected)


@settings(deadline=None, max_examples=60)
@given(row=whole_logits, k=st.integers(1, 7))
def test_top_tokens_are_the_first_by_rank(row, k):
    z = torch.tensor([row], dtype=torch.float64)
    (top,) = watched(z, no_tokens(1), Top(1, k, z.device))
    in_order = sorted(range(len(row)), key=lambda v: (-row[v], v))[:k]
    assert top.ids[0].tolist() == in_order
    assert top.logits[0].tolist() == [row[v] for v in in_order]


@settings(deadline=None, max_examples=60)
@given(
    points=st.integers(1, 4),
    paths=st.integers(1, 3),
    spread=st.sampled_from([0.1, 3.0, 60.0]),
    budget=st.sampled_from([0, MEMORY_BUDGET]),
    seed=st.integers(0, 1000),
)
def test_divergence_from_the_final_distribution_is_the_oracle_s(
    points, paths, spread, budget, seed
):
    z = spread * normal(points * paths, 131, seed=seed)
    (divergence,) = watched(z, no_tokens(len(z)), Divergence(paths), budget=budget)
    normaliser = z.logsumexp(1).view(points, paths)
    found = divergence.mean_gap - (normaliser[-1] - normaliser).flatten()
    by_point = z.view(points, paths, -1)
    expected = oracle.divergence(by_point[-1], by_point).flatten()
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_final_distribution_does_not_diverge_from_itself(dtype):
    z = 20 * normal(6, 300)
    z[4, 7] = -INF
    (divergence,) = watched(z, no_tokens(6), Divergence(2), dtype=dtype)
    assert divergence.mean_gap[-2:].tolist() == [0.0, 0.0]
    assert (divergence.mean_gap[:-2] != 0).all()


@pytest.mark.parametrize("excludes", ["final", "earlier", "both"])
def test_excluded_tokens_count_as_the_definition_says(excludes):
    z = normal(2, 97)
    z[{"final": [1], "earlier": [0], "both": [0, 1]}[excludes], 5] = -INF
    (divergence,) = watched(z, no_tokens(2), Divergence(1))
    normaliser = z.logsumexp(1)
    found = float(divergence.mean_gap[0] - (normaliser[1] - normaliser[0]))
    assert found == pytest.approx(float(oracle.divergence(z[1], z[0])))
    assert (found == INF) == (excludes == "earlier")


@pytest.mark.parametrize("excludes", ["final", "both"])
def test_blocks_without_any_possible_token_do_not_spoil_divergences(excludes):
    z = normal(2, 200)
    z[1, :130] = -INF  # two whole blocks of 64
    if excludes == "both":
        z[0, :130] = -INF
    (divergence,) = watched(z, no_tokens(2), Divergence(1))
    normaliser = z.logsumexp(1)
    found = divergence.mean_gap - (normaliser[1] - normaliser)
    torch.testing.assert_close(found, oracle.divergence(z[1], z))


@pytest.mark.parametrize("post", POSTS)
@pytest.mark.parametrize("budget", [0, MEMORY_BUDGET])
def test_slopes_are_those_of_reverse_mode_autograd(post, budget):
    head = make_head(vocab=131, post=post, dtype=torch.float64)
    states, directions = make_states(2, 4, 12, dtype=torch.float64)
    tokens = torch.tensor([[0, 130], [64, -1], [63, 65], [-1, -1]])
    slope = Slope(tokens)
    read(
        head.readout,
        states,
        tokens,
        directions=directions,
        observers=[slope],
        memory_budget=budget,
    )
    for row, wanted in enumerate(tokens.tolist()):
        state = states[row].clone().requires_grad_()
        z = oracle.logits(head, state[None])[0]
        others = [v for v in range(131) if v not in wanted]
        (gradient,) = torch.autograd.grad(
            z[others].logsumexp(0), state, retain_graph=True
        )
        expected = float(gradient @ directions[row])
        assert float(slope.rest[row]) == pytest.approx(expected, rel=1e-10)
        for slot, token in enumerate(wanted):
            if token < 0:
                assert float(slope.own[row, slot]) == 0.0
                continue
            (gradient,) = torch.autograd.grad(z[token], state, retain_graph=True)
            expected = float(gradient @ directions[row])
            assert float(slope.own[row, slot]) == pytest.approx(expected, rel=1e-10)


def test_masked_tokens_do_not_spoil_slopes():
    head = make_head(vocab=131, dtype=torch.float64)
    bias = head.bias.clone()
    bias[:70] = -INF
    states, directions = make_states(2, 3, 12, dtype=torch.float64)
    tokens = torch.tensor([[100], [3], [129]])
    slope = Slope(tokens)
    read(
        head.but(bias=bias).readout,
        states,
        tokens,
        directions=directions,
        observers=[slope],
        memory_budget=0,
    )
    kept = Slope(torch.tensor([[30], [-1], [59]]))
    read(
        head.but(unembed=head.unembed[70:], bias=head.bias[70:]).readout,
        states,
        torch.tensor([[30], [-1], [59]]),
        directions=directions,
        observers=[kept],
    )
    torch.testing.assert_close(slope.rest, kept.rest)


@settings(deadline=None, max_examples=40)
@given(row=whole_logits, lift=st.sampled_from([0.0, -1e4 / 3]))
def test_moments_are_mean_and_standard_deviation(row, lift):
    z = torch.tensor([row, [0.0] * len(row)], dtype=torch.float64) + lift
    (found,) = watched(z, no_tokens(2), Moments(2, z.device))
    assert torch.allclose(found.mean, z.mean(1), rtol=1e-12)
    assert torch.allclose(found.spread, z.std(1, correction=0), atol=1e-5)
    assert found.spread[1] == 0
    assert bool(found.spread[0] == 0) == (len(set(row)) == 1)


def test_moments_leave_masked_tokens_out_and_show_what_is_odd():
    z = torch.tensor([[1.0, -INF, 3.0], [INF, 0.0, 0.0], [torch.nan, 0.0, 1.0]])
    (found,) = watched(z.double(), no_tokens(3), Moments(3, z.device))
    assert found.mean[0] == 2
    assert found.spread[0] == 1
    assert not found.mean[1:].isfinite().any()
    assert not found.spread[1:].isfinite().any()


@pytest.mark.parametrize("value", [0.1, -7.3, 1e4 / 3])
@pytest.mark.parametrize("size", [7, 1_009, 10_007])
def test_equal_logits_have_no_spread_whatever_rounding_leaves(value, size):
    z = torch.full((1, size), value, dtype=torch.float64)
    (found,) = watched(z, no_tokens(1), Moments(1, z.device))
    assert found.spread[0] == 0


@pytest.mark.parametrize("post", POSTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("budget", [0, MEMORY_BUDGET])
def test_moments_are_those_of_dense_float64_logits(post, dtype, budget):
    """In one block or many; of a bias that is far from zero, where no cap hides it."""
    head = make_head(vocab=1031, post=post, dtype=dtype)
    head = head.but(bias=head.bias + (0 if post == "soft-cap" else 50))
    states = make_states(3, 4, 12, dtype=dtype).flatten(0, 1)
    moments = Moments(len(states), states.device)
    tokens = no_tokens(len(states))
    read(head.readout, states, tokens, observers=[moments], memory_budget=budget)
    z = oracle.logits(head, states)
    spread = (z - z.mean(1, keepdim=True)).square().mean(1).sqrt()
    allowed = {"rtol": 0, "atol": oracle.tolerance(dtype, float(z.abs().max()))}
    torch.testing.assert_close(moments.mean, z.mean(1), **allowed)
    torch.testing.assert_close(moments.spread, spread, **allowed)
    assert spread.min() > 100 * allowed["atol"]  # so that the comparison can fail
