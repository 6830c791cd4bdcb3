import numpy as np
import pytest
import torch
from toys import make_head, make_states, make_trace, normal, token

from iglens.attribution import attribute
from iglens.errors import ArgumentError


@pytest.mark.parametrize("shape", [(4, 3, 12), (5, 2, 12), (5, 3, 13), (3, 5, 12)])
def test_states_of_another_shape_are_refused(shape):
    with pytest.raises(ArgumentError, match=r"needs \(5, 3, 12\)") as error:
        make_trace().with_states(torch.zeros(shape))
    assert str(shape) in str(error.value)


@pytest.mark.parametrize("shape", [(3, 96), (3, 98)])
def test_logits_of_another_vocabulary_are_refused(shape):
    trace = make_trace()
    with pytest.raises(ArgumentError, match=r"`logits`.*needs \(3, 97\)") as error:
        trace.with_states(trace.states, torch.zeros(shape))
    assert str(shape) in str(error.value)


def test_states_are_replaced_and_the_trace_itself_is_left_alone():
    trace = make_trace()
    before = trace.states.clone()
    states, logits = make_states(5, 3, 12, seed=3).float(), torch.zeros(3, 97)
    mine = trace.with_states(states, logits)
    assert mine.states is states
    assert mine.logits is logits
    assert torch.equal(trace.states, before)
    assert trace.with_states(states).logits is None


def test_the_mean_baseline_of_replaced_states_is_the_original_one():
    trace = make_trace()
    mine = trace.with_states(trace.states + 1.0)
    ours, theirs = (
        attribute(t, token(3), baseline="mean", strict=False) for t in (mine, trace)
    )
    np.testing.assert_array_equal(ours.baseline, theirs.baseline)
    assert (ours.levels[:, 1] != theirs.levels[:, 1]).all()


def test_another_precision_reads_the_same_states_finer():
    trace = make_trace(make_head(dtype=torch.bfloat16))
    fine = trace.with_precision(torch.float64)
    assert fine.readout.precision == torch.float64
    assert trace.readout.precision == torch.float32
    assert fine.states is trace.states
    assert attribute(fine).readout.dtype == "float64"


def test_attribution_leaves_the_trace_as_it_was():
    trace = make_trace()
    before = {name: getattr(trace, name).clone() for name in ("states", "logits")}
    for baseline in ("embedding", "zero", normal(12)):
        attribute(trace, baseline=baseline)
    for name, values in before.items():
        assert torch.equal(getattr(trace, name), values)


def test_rows_are_found_by_position():
    trace = make_trace(positions=torch.tensor([2, 5, 9]))
    assert [trace.row_of(position) for position in (2, 5, 9)] == [0, 1, 2]


@pytest.mark.parametrize("position", [0, 3, 10, -1])
def test_positions_that_were_not_traced_are_refused_with_those_that_were(position):
    trace = make_trace(positions=torch.tensor([2, 5, 9]))
    with pytest.raises(ArgumentError, match=r"not traced.*\[2, 5, 9\]"):
        trace.row_of(position)


def test_the_last_point_is_the_output_of_the_last_block():
    assert make_trace(n_layers=4).n_layers == 4
    some = make_trace(states=make_states(3, 2, 12).float(), layers=(0, 5, 24))
    assert some.n_layers == 24
