"""What stems from what, in models written to make it hard to see."""

import numpy as np
import pytest
import torch
from families import Handmade, build, left_as_it_was, randomise
from torch import nn

from iglens import Decoder
from iglens.model.inside.cuts import between, cuts
from iglens.model.inside.recorder import record_flow

IDS = torch.tensor([[3, 4, 5, 6, 7]])


class Free(nn.Module):
    """A block that is one function of the stream, and of a matrix of weights."""

    def __init__(self, function, d_model=16):
        super().__init__()
        self.function = function
        self.mix = nn.Linear(d_model, d_model)
        self.still = nn.Identity()

    def forward(self, hidden):
        return self.function(hidden, self.mix, self.still)


def flow_of(function, **changes):
    model = Handmade(n_layers=2, vocab=40)
    for index in range(2):
        model.body[index] = Free(function)
    randomise(model)
    decoder = Decoder(model.eval())
    return record_flow(decoder._runner, decoder.verified.stream, IDS, **changes)


def crossed(function):
    """Which calls of `still` in the first block see a value that every path crosses."""
    flow = flow_of(function, values=True)
    path = between(flow.nodes, *flow.states[:2])
    found = set(cuts(flow.nodes, path))
    calls = [call for call in flow.calls if call.name == "body.0.still"]
    return [call.given[0, 0] in found for call in calls]


def later(mixed):
    """Every position the mean of those before; so that tokens are mixed."""
    return mixed.cumsum(1) / 8


def test_a_state_between_two_sums_is_on_every_path():
    def block(hidden, mix, still):
        middle = still(hidden + later(mix(hidden)))
        return middle + torch.tanh(mix(middle))

    assert crossed(block) == [True]


def test_a_state_is_not_on_every_path_if_a_shortcut_goes_round_it():
    def block(hidden, mix, still):
        middle = still(hidden + later(mix(hidden)))
        return middle + torch.tanh(mix(middle)) + 0.1 * hidden

    assert crossed(block) == [False]


def test_a_write_in_place_is_a_new_value():
    def block(hidden, mix, still):
        hidden = hidden.clone()
        still(hidden)
        hidden += later(mix(hidden))
        still(hidden)
        hidden.add_(torch.tanh(mix(hidden)))
        return hidden

    assert crossed(block) == [True, True]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_neither_of_two_writes_through_views_is_lost(order):
    def block(hidden, mix, still):
        pieces = [still(later(mix(hidden))), mix(hidden)]
        whole = torch.zeros_like(hidden)
        for index in order:
            whole[:, index::2].copy_(pieces[index][:, index::2])
        return whole

    assert crossed(block) == [False]


def test_a_view_taken_before_a_write_shows_it():
    def block(hidden, mix, still):
        whole = torch.zeros_like(hidden)
        view = whole[:, :, :16]
        flat = whole.view(-1, 16)
        whole += still(later(mix(hidden)))
        return view + flat.view(hidden.shape)

    assert crossed(block) == [True]


def test_a_tensor_that_was_overwritten_stems_from_nothing_before():
    def block(hidden, mix, still):
        scratch = hidden.clone()
        scratch.zero_()
        middle = still(hidden + later(mix(hidden)))
        return middle + torch.tanh(mix(middle)) + scratch

    assert crossed(block) == [True]


def test_a_part_that_was_overwritten_leaves_the_rest():
    def block(hidden, mix, still):
        rest = hidden.clone()
        rest[:, :, :8] = 0
        middle = still(hidden + later(mix(hidden)))
        return middle + torch.tanh(mix(middle)) + rest

    assert crossed(block) == [False]


def test_a_shape_is_no_value():
    def block(hidden, mix, still):
        middle = still(hidden + later(mix(hidden)))
        nothing = torch.zeros_like(hidden) + hidden.new_ones(16)
        return middle + torch.tanh(mix(middle)) + nothing

    assert crossed(block) == [True]


class Foreign(nn.Module):
    """Code that no operator of torch shows."""

    def forward(self, hidden):
        return torch.from_numpy(np.tanh(hidden.numpy()))


def test_code_that_no_operator_shows_stems_from_what_it_was_given():
    foreign = Foreign()

    class Block(Free):
        def __init__(self, function):
            super().__init__(function)
            self.foreign = foreign

    def block(hidden, mix, still):
        middle = still(hidden + later(mix(hidden)))
        return middle + torch.tanh(mix(middle)) + foreign(hidden)

    model = Handmade(n_layers=2, vocab=40)
    for index in range(2):
        model.body[index] = Block(block)
    decoder = Decoder(randomise(model).eval())
    flow = record_flow(decoder._runner, decoder.verified.stream, IDS)
    start, end = flow.states[:2]
    path = between(flow.nodes, start, end)
    call = next(c for c in flow.calls if c.name == "body.0.still")
    assert call.given[0, 0] not in cuts(flow.nodes, path)


def test_values_are_those_of_the_time_when_they_were_made():
    def block(hidden, mix, still):
        state = still(hidden + later(mix(hidden)))
        output = state + torch.tanh(mix(state))
        state.zero_()
        return output

    flow = flow_of(block, values=True)
    call = next(c for c in flow.calls if c.name == "body.0.still")
    assert flow.nodes[call.given[0, 0]].value.abs().min() > 0
    assert flow_of(block).nodes[call.given[0, 0]].value is None


def test_weights_are_told_from_vectors_and_from_other_states():
    def block(hidden, mix, still):
        return hidden * mix.bias + torch.tanh(later(mix(hidden)))

    flow = flow_of(block)
    ops = {node.op: node.weighty for node in flow.nodes}
    assert ops["addmm"]
    assert not ops["mul"]
    assert not ops["tanh"]


def test_weights_that_were_cast_first_are_weights():
    def block(hidden, mix, still):
        weight = mix.weight.double().T
        return hidden + torch.tanh(later((hidden.double() @ weight).float()))

    flow = flow_of(block)
    assert {node.op for node in flow.nodes if node.weighty} <= {"mm", "bmm"}
    assert sum(node.weighty for node in flow.nodes) == 2


@pytest.mark.parametrize("family", ["llama", "phi", "qwen3 moe"])
def test_every_state_stems_from_the_one_before(family):
    decoder = Decoder(build(family))
    flow = record_flow(decoder._runner, decoder.verified.stream, IDS)
    assert len(flow.states) == decoder.n_layers + 1
    for start, end in zip(flow.states, flow.states[1:], strict=False):
        assert between(flow.nodes, start, end)


def test_the_model_is_left_as_it_was_also_after_an_error():
    decoder = Decoder(build("gemma2"))
    stream = decoder.verified.stream

    def fail(*_):
        raise KeyboardInterrupt

    with left_as_it_was(decoder.model):
        record_flow(decoder._runner, stream, IDS)
    handle = decoder.model.model.layers[1].mlp.register_forward_hook(fail)
    with left_as_it_was(decoder.model), pytest.raises(KeyboardInterrupt):
        record_flow(decoder._runner, stream, IDS)
    handle.remove()
    assert torch.utils._python_dispatch._get_current_dispatch_mode() is None
