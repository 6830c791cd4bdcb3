import pytest
import torch
from toys import POSTS, make_head, make_states, normal

from iglens.errors import ArgumentError
from iglens.readout import CalledReadout, read
from iglens.readout.observers import Divergence, Rank, Slope, Top
from iglens.readout.streamed import block_width


def called(head, **changes):
    linear = head.readout
    given = {
        "tail": linear.own_logits,
        "d_model": linear.d_model,
        "vocab_size": linear.vocab_size,
        "dtype": linear.dtype,
        "precision": linear.precision,
    }
    return CalledReadout(**(given | changes))


def assert_same(one, other):
    for name in ("logits", "rest", "rest_max"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("post", POSTS)
@pytest.mark.parametrize("budget", [0, 2**26])
def test_a_called_head_is_read_as_the_same_head_is_as_a_matrix(post, budget):
    head = make_head(vocab=131, post=post, dtype=torch.float64)
    states, directions = make_states(2, 4, 12, dtype=torch.float64)
    tokens = torch.tensor([[0, 130], [64, -1], [63, 65], [-1, -1]])
    found, seen = [], []
    for readout in (called(head), head.readout):
        observers = [
            Rank(tokens),
            Top(4, 5, tokens.device),
            Divergence(2),
            Slope(tokens),
        ]
        found.append(
            read(
                readout,
                states,
                tokens,
                directions=directions,
                observers=observers,
                memory_budget=budget,
            )
        )
        seen.append(observers)
    assert_same(*found)
    for (rank, top, divergence, slope), other in [seen]:
        assert torch.equal(rank.rank[tokens >= 0], other[0].rank[tokens >= 0])
        assert torch.equal(top.ids, other[1].ids)
        torch.testing.assert_close(divergence.mean_gap, other[2].mean_gap)
        torch.testing.assert_close(slope.own, other[3].own)
        torch.testing.assert_close(slope.rest, other[3].rest)


def test_blocks_may_be_overwritten_without_changing_later_answers():
    projection = called(make_head()).project(normal(3, 12, dtype=torch.float32))
    tokens = torch.tensor([[0], [50], [96]])
    before = projection.at(tokens)
    for block in projection.blocks(10):
        block.logits.fill_(torch.nan)
    assert torch.equal(projection.at(tokens), before)
    assert next(projection.blocks(97)).logits.isfinite().all()


def test_the_tail_runs_once_per_reading():
    calls = []

    def tail(states):
        calls.append(len(states))
        return states @ torch.ones(12, 300)

    readout = called(make_head(vocab=300), tail=tail)
    states = normal(5, 12, dtype=torch.float32)
    budget = 5 * 300 * 4 * 2  # all states at once, in more than one block
    assert block_width(readout, 5, budget) < 300
    read(readout, states, torch.zeros(5, 1).long(), memory_budget=budget)
    assert calls == [5]


def test_unused_slots_are_minus_infinity():
    projection = called(make_head()).project(normal(1, 12, dtype=torch.float32))
    assert projection.at(torch.tensor([[-1, 3]]))[0].isinf().tolist() == [True, False]


class NoDerivative(torch.autograd.Function):
    @staticmethod
    def forward(states):
        return states.repeat(1, 3)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        raise AssertionError("not asked for")


def test_a_head_without_derivative_says_which_estimator_needs_none():
    readout = called(make_head(vocab=36), tail=NoDerivative.apply)
    states = normal(2, 12, dtype=torch.float32)
    with pytest.raises(ArgumentError, match=r"no derivative.*estimator='observed'"):
        readout.project(states, states)
    readout.project(states)


def test_a_head_that_loses_its_derivative_says_which_estimator_needs_none():
    readout = called(
        make_head(vocab=36), tail=lambda h: torch.from_numpy(h.numpy()).repeat(1, 3)
    )
    states = normal(2, 12, dtype=torch.float32)
    with pytest.raises(ArgumentError, match=r"derivative.*estimator='observed'"):
        readout.project(states, states)
    readout.project(states)


def test_the_precision_of_sums_can_be_raised():
    readout = called(make_head(dtype=torch.bfloat16)).with_precision(torch.float64)
    projection = readout.project(normal(2, 12, dtype=torch.bfloat16))
    assert next(projection.blocks(97)).logits.dtype == torch.float64
    assert readout.logits(normal(2, 12, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_only_as_many_states_are_called_as_whole_rows_fit_the_budget():
    readout = called(make_head(vocab=1000))
    assert readout.points_within(0) == 1
    assert readout.points_within(10**6) == 10**6 // (2 * 4 * 1000)
