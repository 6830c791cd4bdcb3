import hypothesis.strategies as st
import oracle
import pytest
import torch
from hypothesis import given, settings
from toys import DTYPES, NORMS, POSTS, make_head, normal

from iglens.readout import LinearReadout, read


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", NORMS)
def test_the_model_s_own_logits_are_in_its_own_dtype(dtype, norm):
    head = make_head(norm=norm, post="soft-cap", dtype=dtype)
    found = head.readout.logits(normal(3, 12, dtype=dtype))
    assert found.dtype == dtype
    expected = oracle.logits(head, normal(3, 12, dtype=dtype))
    torch.testing.assert_close(
        found.double(), expected, rtol=0, atol=oracle.tolerance(dtype, 3) / 10
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_levels_are_read_in_float32_at_least(dtype):
    readout = make_head(dtype=dtype).readout
    assert readout.dtype == dtype
    assert readout.precision == torch.promote_types(dtype, torch.float32)
    block = next(readout.project(normal(2, 12, dtype=dtype)).blocks(7))
    assert block.logits.dtype == readout.precision


@settings(deadline=None, max_examples=60)
@given(
    vocab=st.integers(1, 60),
    width=st.integers(1, 70),
    post=st.sampled_from(POSTS),
    bias=st.booleans(),
)
def test_blocks_of_any_width_are_the_whole_vocabulary(vocab, width, post, bias):
    head = make_head(vocab=vocab, bias=bias, post=post, dtype=torch.float64)
    states = normal(3, 12)
    whole, start = torch.full((3, vocab), torch.nan, dtype=torch.float64), 0
    for block in head.readout.project(states).blocks(width):
        assert block.start == start
        start += block.logits.shape[1]
        whole[:, block.start : start] = block.logits
        block.logits.fill_(torch.nan)  # the receiver may overwrite
    assert start == vocab
    torch.testing.assert_close(whole, oracle.logits(head, states))


@pytest.mark.parametrize("dtype", DTYPES)
def test_single_tokens_are_read_in_float64(dtype):
    head = make_head(norm="none", post="scale", dtype=dtype)
    states = normal(3, 12, dtype=dtype)
    tokens = torch.tensor([[5, -1], [96, 5], [0, 1]])
    found = head.readout.project(states).at(tokens)
    expected = oracle.logits(head, states).gather(1, tokens.clamp(min=0))
    assert found[0, 1] == -torch.inf
    found[0, 1] = expected[0, 1]
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("post", POSTS)
def test_derivatives_of_logits_are_those_of_reverse_mode_autograd(norm, post):
    head = make_head(vocab=23, norm=norm, post=post, dtype=torch.float64)
    states, directions = normal(2, 3, 12)
    blocks = list(head.readout.project(states, directions).blocks(23))
    jacobian = torch.autograd.functional.jacobian(
        lambda h: oracle.logits(head, h).sum(0), states
    )
    expected = torch.einsum("vpd,pd->pv", jacobian, directions)
    torch.testing.assert_close(blocks[0].derivatives, expected)
    torch.testing.assert_close(blocks[0].logits, oracle.logits(head, states))


def test_without_directions_there_are_no_derivatives():
    readout = make_head().readout
    blocks = readout.project(normal(3, 12, dtype=torch.float32)).blocks(50)
    assert [block.derivatives for block in blocks] == [None, None]


def test_another_precision_reads_closer_to_the_truth():
    head = make_head(dtype=torch.float32)
    states, tokens = normal(50, 12, dtype=torch.float32), torch.zeros(50, 1).long()
    truth = oracle.logits(head, states)
    errors = {}
    for precision in (torch.float32, torch.float64):
        readout = head.readout.with_precision(precision)
        block = next(readout.project(states).blocks(97))
        assert block.logits.dtype == precision
        assert readout.project(states).at(tokens).dtype == torch.float64
        errors[precision] = float((block.logits.double() - truth).abs().max())
    assert errors[torch.float64] < 1e-13 < 1e-8 < errors[torch.float32]
    assert head.readout.precision == torch.float32


def test_weights_that_change_are_read_as_they_are_now():
    head = make_head(dtype=torch.float64)
    readout, states = head.readout, normal(2, 12)
    before = next(readout.project(states).blocks(97)).logits.clone()
    head.unembed.mul_(2.0)
    after = next(readout.project(states).blocks(97)).logits
    torch.testing.assert_close(after - head.bias, 2 * (before - head.bias))


def test_the_head_may_be_narrower_than_the_stream():
    """Some models project their states down between norm and head."""
    down, unembed = normal(12, 5), normal(31, 5, seed=1)
    readout = LinearReadout(
        norm=lambda h, dtype: h.to(dtype) @ down.to(dtype),
        own_logits=lambda h: h @ down @ unembed.T,
        weights=lambda: (unembed, None),
        d_model=12,
        vocab_size=31,
        dtype=torch.float64,
        precision=torch.float64,
    )
    states = normal(4, 12, seed=2)
    block = next(readout.project(states, states).blocks(31))
    torch.testing.assert_close(block.logits, readout.logits(states))
    torch.testing.assert_close(block.derivatives, readout.logits(states))


def test_reading_leaves_no_gradient_and_needs_none():
    head = make_head()
    head.unembed.requires_grad_()
    states = normal(2, 12, dtype=torch.float32).requires_grad_()
    assert not head.readout.logits(states).requires_grad
    found = read(head.readout, states, torch.tensor([[0], [1]]))
    assert not found.logits.requires_grad
    assert not found.rest.requires_grad


def test_fewer_points_are_read_at_once_in_a_smaller_budget():
    readout = make_head().readout
    assert readout.points_within(0) == 1
    assert readout.points_within(2**20) == 2**20 // (12 * 4 * 4)
