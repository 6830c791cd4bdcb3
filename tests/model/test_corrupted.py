"""Hooks of others that change what runs, after a model was verified.

Whatever they change, the map is that of the model as it runs with them, or it is
refused. Never is it the map of the model without them.
"""

import numpy as np
import pytest
import torch
from families import build, full_logits, some_ids
from torch import nn

from iglens import Decoder, FidelityError, UnsupportedModelError, attribute, explain

IDS = some_ids()
EVERY = {"positions": "all", "max_new_tokens": 0}


def hidden_of(output):
    return output[0] if isinstance(output, tuple) else output


def adds(module, args, output):
    """Steering: another vector is handed on."""
    hidden = hidden_of(output) + torch.linspace(-1, 1, 32)
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


def adds_in_place(module, args, output):
    hidden_of(output).add_(torch.linspace(-1, 1, 32))


def scales_the_input(module, args):
    return (args[0] * 1.5 + 0.3, *args[1:])


def scales_the_input_in_place(module, args):
    args[0].mul_(1.5).add_(0.3)


def scales_by_position(module, args, output):
    places = torch.arange(1, output.shape[1] + 1)[:, None]
    return output * places


def rewrites_the_states(module, args, output):
    output.last_hidden_state = output.last_hidden_state * 1.5
    return output


def rewrites_the_states_in_place(module, args, output):
    output.last_hidden_state.mul_(1.5)


def rewrites_the_logits(module, args, output):
    output["logits"] = output["logits"] * 1.1
    return output


def draws_lots(module, args, output):
    return output + torch.randn_like(output)


EXACT = {
    "a block's output": ("model.layers.1", adds),
    "a block's output, in place": ("model.layers.1", adds_in_place),
    "the last block's output": ("model.layers.2", adds),
    "the last block's output, in place": ("model.layers.2", adds_in_place),
    "a part of a block": ("model.layers.0.mlp", adds),
    "the embedding": ("model.embed_tokens", adds),
    "the norm's output": ("model.norm", adds),
    "the norm's input": ("model.norm", scales_the_input),
    "the norm's input, in place": ("model.norm", scales_the_input_in_place),
}

REFUSED = {
    "the norm, by position": ("model.norm", scales_by_position, FidelityError),
    "the norm, by lot": ("model.norm", draws_lots, FidelityError),
    "between norm and head": ("model", rewrites_the_states, FidelityError),
    "there, in place": ("model", rewrites_the_states_in_place, FidelityError),
    "the logits": ("", rewrites_the_logits, FidelityError),
    "the head": ("lm_head", rewrites_the_logits, UnsupportedModelError),
    "the head's input": ("lm_head", scales_the_input, UnsupportedModelError),
}


def attach(model, where, hook):
    module = model.get_submodule(where)
    if hook in (scales_the_input, scales_the_input_in_place):
        return module.register_forward_pre_hook(hook)
    return module.register_forward_hook(hook)


def own_chances(model):
    own = full_logits(model, IDS).double().softmax(-1)
    return own[range(len(IDS) - 1), IDS[1:]].numpy()


@pytest.mark.parametrize("prepend", [False, True])
@pytest.mark.parametrize("what", EXACT)
def test_the_map_is_that_of_the_model_with_the_hook(what, prepend):
    model = build("llama")
    decoder = Decoder(model)
    before = explain(decoder, IDS, **EVERY)
    where, hook = EXACT[what]
    if prepend:  # another hook that does nothing comes after it
        model.get_submodule(where).register_forward_hook(lambda *given: None)
    attach(model, where, hook)
    trace = decoder.trace(IDS, range(1, len(IDS)))
    kept = trace.states.clone()
    found, again = attribute(trace), attribute(trace)
    expected = own_chances(model)
    np.testing.assert_allclose(found.final, expected, atol=1e-6)
    assert np.abs(expected - before.final).max() > 1e-3
    assert found.fidelity.max() <= decoder.verified.tolerance.total_variation
    assert again.levels.tolist() == found.levels.tolist()
    assert torch.equal(trace.states, kept)


@pytest.mark.parametrize("what", REFUSED)
def test_what_changes_between_the_state_and_the_logits_is_refused(what):
    model = build("llama")
    decoder = Decoder(model)
    explain(decoder, IDS, **EVERY)
    where, hook, error = REFUSED[what]
    handle = attach(model, where, hook)
    with pytest.raises(error):
        explain(decoder, IDS, **EVERY)
    handle.remove()
    explain(decoder, IDS, **EVERY)


@pytest.mark.parametrize("what", ["the norm, by lot", "a part of a block"])
def test_a_model_that_draws_lots_because_of_a_hook_is_refused_at_loading(what):
    model = build("llama")
    where = (REFUSED | EXACT)[what][0]
    attach(model, where, draws_lots)
    with pytest.raises(UnsupportedModelError, match="not deterministic"):
        Decoder(model)


def test_strict_off_shows_the_wreck_with_its_flags():
    model = build("llama")
    decoder = Decoder(model)
    attach(model, "model", rewrites_the_states)
    result = explain(decoder, IDS, **EVERY, strict=False)
    assert result.fidelity.max() > 1e-3
    assert {flag.kind for flag in result.flags}


class Rounder(nn.Module):
    """A norm that computes something else when it is given float32."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, hidden):
        normed = self.norm(hidden)
        return normed.flip(-1) if hidden.dtype == torch.float32 else normed


def test_a_tail_that_is_another_one_in_float32_is_not_streamed_there():
    model = build("llama", torch.bfloat16)
    assert Decoder(model).readout.kind == "explicit"
    model.model.norm = Rounder(model.model.norm)
    decoder = Decoder(model)
    assert decoder.readout.kind == "injected"
    result = explain(decoder, IDS, **EVERY)
    np.testing.assert_allclose(result.final, own_chances(model), atol=1e-2)
