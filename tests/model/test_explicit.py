import numpy as np
import pytest
import torch
from families import (
    FAMILIES,
    Handmade,
    build,
    full_logits,
    left_as_it_was,
    some_ids,
    total_variation,
)
from torch import nn

from iglens import Decoder, LinearReadout, UnsupportedModelError, attribute, explain
from iglens.model.explicit import is_plain_linear
from iglens.readout import CalledReadout

IDS = some_ids()
EVERY = {"positions": "all", "max_new_tokens": 0}


class Adapted(nn.Module):
    """A head with a low-rank update beside it, as LoRA has it."""

    def __init__(self, base):
        super().__init__()
        self.base_layer = base
        self.down = nn.Linear(base.in_features, 4, bias=False)
        self.up = nn.Linear(4, base.out_features, bias=False)

    def forward(self, hidden):
        return self.base_layer(hidden) + self.up(self.down(hidden)) * 2


class RowQuantised(nn.Module):
    """A head in int8 with one scale per row, activations in one scale per token."""

    def __init__(self, base):
        super().__init__()
        self.scale = base.weight.abs().amax(1) / 127
        weight = (base.weight / self.scale[:, None]).round().to(torch.int8)
        self.register_buffer("weight", weight)

    def forward(self, hidden):
        size = hidden.abs().amax(-1, keepdim=True) / 127
        levels = (hidden / size).round()
        return (levels @ self.weight.float().T) * size * self.scale


class Narrowed(nn.Linear):
    """A subclass may do anything."""

    def forward(self, hidden):
        return super().forward(hidden).clamp(-3, 3)


def subclassed(head):
    other = Narrowed(head.in_features, head.out_features, bias=False)
    other.weight = head.weight
    return other


def hooked(head):
    shift = torch.linspace(-2, 2, head.out_features)
    head.register_forward_hook(lambda module, args, output: output * 1.5 + shift)
    return head


def patched(head):
    original = head.forward
    head.forward = lambda hidden: original(hidden) * 2
    return head


def hooked_before(head):
    head.register_forward_pre_hook(lambda module, args: (args[0] * 1.5,))
    return head


HEADS = {
    "adapted": Adapted,
    "quantised by rows": RowQuantised,
    "a subclass": subclassed,
    "with a hook": hooked,
    "with another forward": patched,
    "with a hook before it": hooked_before,
}


def model_with(change):
    model = build("llama")
    torch.manual_seed(0)
    model.lm_head = change(model.lm_head)
    return model


@pytest.fixture(params=HEADS)
def odd(request):
    return model_with(HEADS[request.param])


def own_probabilities(model, ids):
    own = full_logits(model, ids).double().softmax(-1)
    return own[range(len(ids) - 1), ids[1:]].numpy()


def test_a_head_that_is_no_plain_matrix_is_called(odd):
    decoder = Decoder(odd)
    assert isinstance(decoder.readout, CalledReadout)
    with left_as_it_was(odd):
        result = explain(decoder, IDS, **EVERY)
    expected = own_probabilities(odd, IDS)
    np.testing.assert_allclose(result.final, expected, atol=1e-6)
    assert result.fidelity.max() <= decoder.verified.tolerance.total_variation < 1e-3
    plain = own_probabilities(build("llama"), IDS)
    assert np.abs(expected - plain).max() > 1e-4


def test_levels_of_a_called_head_are_those_of_calling_it(odd):
    decoder = Decoder(odd)
    trace = decoder.trace(IDS, range(1, len(IDS)))
    result = attribute(trace)
    norm = odd.model.norm
    with torch.no_grad():
        called = odd.lm_head(norm(trace.states)).double().softmax(-1)
    expected = called[:, range(len(IDS) - 1), IDS[1:]].T
    np.testing.assert_allclose(result.levels, expected, atol=1e-6)


def test_a_plain_head_is_read_as_a_matrix():
    decoder = Decoder(build("llama"))
    assert isinstance(decoder.readout, LinearReadout)
    weight, bias = decoder.readout.weights()
    assert weight.data_ptr() == decoder.model.lm_head.weight.data_ptr()
    assert bias is None
    assert not weight.requires_grad


def test_only_an_untouched_linear_layer_is_plain():
    assert is_plain_linear(nn.Linear(2, 3))
    assert not is_plain_linear(nn.Linear(2, 3, device="meta"))
    for change in HEADS.values():
        assert not is_plain_linear(change(nn.Linear(2, 3, bias=False))), change


def dynamic_int8(module):
    quantize = torch.ao.quantization.quantize_dynamic
    return quantize(module, {nn.Linear}, dtype=torch.qint8)


def int8_head(model):
    model.lm_head = dynamic_int8(nn.Sequential(model.lm_head))[0]
    return model


@pytest.mark.parametrize("quantise", [int8_head, dynamic_int8])
@pytest.mark.filterwarnings(
    "ignore:torch.ao.quantization is deprecated",
    "ignore:torch.quantize_per_tensor, .* are deprecated",
)
def test_dynamic_int8_is_called_and_its_noise_is_measured(quantise):
    """It takes one scale for all tokens at once: another batch, other logits."""
    model = quantise(build("llama"))
    decoder = Decoder(model)
    assert isinstance(decoder.readout, CalledReadout)
    trace = decoder.trace(IDS, range(1, len(IDS) + 1))
    read = decoder.readout.logits(trace.states[-1])
    assert total_variation(read, full_logits(model, IDS)) < 1e-5
    result = explain(decoder, IDS, **EVERY)
    assert result.fidelity.max() <= decoder.verified.tolerance.total_variation
    assert result.noise_floor.min() > 1e-4
    assert Decoder(build("llama")).verified.noise.probability < 1e-5


CHANGES = {
    "a hook": hooked,
    "a hook before it": hooked_before,
    "another forward": patched,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_head_that_is_touched_later_is_refused_not_misread(change):
    model = build("llama")
    decoder = Decoder(model)
    explain(decoder, IDS, **EVERY)
    CHANGES[change](model.lm_head)
    with pytest.raises(UnsupportedModelError, match="head was given a hook"):
        explain(decoder, IDS, **EVERY)
    result = explain(Decoder(model), IDS, **EVERY)
    expected = own_probabilities(model, IDS)
    np.testing.assert_allclose(result.final, expected, atol=1e-6)


def test_weights_that_change_in_place_are_read_as_they_are_now():
    model = build("phi")
    decoder = Decoder(model)
    before = explain(decoder, IDS, **EVERY)
    with torch.no_grad():
        model.lm_head.weight.mul_(0.5)
        model.lm_head.bias.add_(torch.linspace(-1, 1, 97))
        model.model.final_layernorm.weight.mul_(1.5)
    after = explain(decoder, IDS, **EVERY)
    expected = own_probabilities(model, IDS)
    np.testing.assert_allclose(after.final, expected, atol=1e-6)
    assert np.abs(after.final - before.final).max() > 1e-3


class CoarseHead(Handmade):
    """A float32 stream in front of a bfloat16 head."""

    def forward(self, input_ids):
        hidden = self.norm(self.body(self.embed(input_ids)))
        return self.head(hidden.bfloat16()).float()


def test_a_head_that_streaming_would_read_otherwise_is_called():
    model = CoarseHead()
    model.head.bfloat16()
    ids = [3, 17, 5, 30]
    result = explain(Decoder(model), ids, **EVERY)
    with torch.no_grad():
        own = model(torch.tensor([ids]))[0].double().softmax(-1)
    np.testing.assert_allclose(result.final, own[range(3), ids[1:]], atol=1e-6)
    assert result.precision_gap.max() < 1e-6


class CastsOnTheWay(Handmade):
    """Normed states are scaled in float32 and rounded again in front of the head."""

    def forward(self, input_ids):
        hidden = self.norm(self.body(self.embed(input_ids)))
        return self.head((hidden.float() * 0.3).bfloat16()).float()


def test_casts_of_the_model_do_not_coarsen_what_is_read():
    model = CastsOnTheWay().bfloat16()
    decoder = Decoder(model)
    assert isinstance(decoder.readout, LinearReadout)
    trace = decoder.trace([3, 17, 5], [1, 2])
    result = attribute(trace)
    single = CastsOnTheWay().bfloat16().float()
    with torch.no_grad():
        normed = single.norm(trace.states[-1].float()) * 0.3
        truth = single.head(normed).double().softmax(-1)[[0, 1], [17, 5]]
        own = model(torch.tensor([[3, 17, 5]]))[0].double().softmax(-1)
    np.testing.assert_allclose(result.final, truth, atol=1e-7)
    expected = own[[0, 1], [17, 5]]
    np.testing.assert_allclose(result.model_value, expected, atol=1e-6)
    assert result.precision_gap.max() > 1e-6


def test_the_norm_of_a_low_precision_model_is_its_own_in_float32():
    model = build("gemma2", torch.bfloat16)
    decoder = Decoder(model)
    states = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    with left_as_it_was(model):
        blocks = decoder.readout.project(states.bfloat16()).blocks(97)
        read = torch.cat([block.logits.clone() for block in blocks], 1)
    single = build("gemma2", torch.bfloat16).float()
    with torch.no_grad():
        normed = single.model.norm(states.bfloat16().float())
        expected = 5 * torch.tanh(single.lm_head(normed) / 5)
    torch.testing.assert_close(read, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_no_states_give_no_rows(name):
    readout = Decoder(build(name)).readout
    none = torch.empty(0, readout.d_model)
    assert readout.logits(none).shape == (0, readout.vocab_size)
    tokens = torch.empty(0, 1, dtype=torch.long)
    assert readout.project(none).at(tokens).shape == (0, 1)
