"""Conductance: against inputs_embeds written out, and counted once per layer."""

import numpy as np
import pytest
import torch
from families import left_as_it_was
from toys import make_trace, tiny_decoder, tiny_model, token

import iglens
from iglens.methods import METHODS, Case, compare
from iglens.model.decoder import Decoder
from iglens.model.scaled_inputs import ScaledInputs

IDS = [3, 1, 4, 1, 5]
TARGET = 7
RULES = ("conductance-captum", "conductance")


def hidden_and_gradients(model, scale):
    """Hidden states after every block, all tokens, and the probability's gradient."""
    embedded = model.get_input_embeddings()(torch.tensor([IDS])).detach() * scale
    states, blocks = [], getattr(model, "transformer", None)
    blocks = blocks.h if blocks is not None else model.model.layers

    def keep(module, args, output):
        output = output[0] if isinstance(output, tuple) else output
        output.retain_grad()
        states.append(output)

    handles = [block.register_forward_hook(keep) for block in blocks]
    try:
        with torch.enable_grad():
            out = model(inputs_embeds=embedded.requires_grad_(), use_cache=False)
            out.logits[0, -1].softmax(-1)[TARGET].backward()
    finally:
        for handle in handles:
            handle.remove()
    model.zero_grad()
    return [s.detach() for s in states], [s.grad for s in states]


def by_hand(model, places, weigh):
    """`sum <weigh(g_j, g_(j+1)), h_(j+1) - h_j>` for every layer."""
    passes = [hidden_and_gradients(model, place) for place in places]
    found = np.zeros(len(passes[0][0]))
    for at in range(len(places) - 1):
        (h0, g0), (h1, g1) = passes[at], passes[at + 1]
        for layer in range(len(found)):
            slope = weigh(at, g0[layer], g1[layer])
            found[layer] += float((slope * (h1[layer] - h0[layer])).sum())
    return found.tolist()


@pytest.fixture(scope="module", params=["llama", "gpt2", "phi"])
def decoder(request):
    return tiny_decoder(request.param, dtype=torch.float64)


def credits_of(decoder, name, n_steps):
    found = compare(decoder, IDS, target=TARGET, methods=name, n_steps=n_steps)
    assert found.entries[0].reason is None, found.entries[0].reason
    return found.entries[0].found.credits.tolist()


def test_captums_rule_takes_gradients_at_the_left_of_gauss_legendre_nodes(decoder):
    places = (np.polynomial.legendre.leggauss(6)[0] + 1) / 2
    expected = by_hand(decoder.model, places, lambda at, g0, g1: g0)
    found = credits_of(decoder, "conductance-captum", 5)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_trapezoids_take_both_ends_but_at_zero(decoder):
    places = np.linspace(0, 1, 6)
    expected = by_hand(
        decoder.model, places, lambda at, g0, g1: (g0 + g1) / 2 if at else g1
    )
    found = credits_of(decoder, "conductance", 5)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


def smooth_model():
    """A GPT-2 whose embeddings of places keep its norms away from zero."""
    model = tiny_model("gpt2", dtype=torch.float64)
    model.transformer.wpe.weight.data *= 4
    return model


def test_every_layer_is_given_the_whole_change_so_that_it_counts_l_times():
    decoder = Decoder(smooth_model())
    found = compare(decoder, IDS, target=TARGET, methods="conductance", n_steps=200)
    entry, line = found.entries[0].found, found.table[0]
    assert entry.credits.tolist() == pytest.approx([line.change] * 3, rel=2e-3)
    assert line.total == pytest.approx(3 * line.change, rel=2e-3)
    assert line.error == pytest.approx(2 * line.change, rel=4e-3)
    assert abs(line.change) > 1e-4


def test_trapezoids_converge_faster_than_one_sided_rules():
    decoder = Decoder(smooth_model())
    missed = {
        name: abs(
            compare(decoder, IDS, target=TARGET, methods=name, n_steps=64)
            .table[0]
            .own_error
        )
        for name in RULES
    }
    assert missed["conductance"] < missed["conductance-captum"] / 5


@pytest.mark.parametrize(("name", "besides"), [(RULES[0], 2), (RULES[1], 0)])
def test_passes_are_counted_forwards_and_back(decoder, name, besides):
    cost = compare(decoder, IDS, methods=name, n_steps=5).entries[0].cost
    assert cost.forwards == cost.backwards == 6 + besides
    assert cost.head == 0


def test_the_model_is_left_as_it_was(decoder):
    with left_as_it_was(decoder.model):
        compare(decoder, IDS, methods="conductance", n_steps=2)


def test_the_level_at_scale_one_is_the_models_own(decoder):
    inputs = ScaledInputs(decoder, IDS, lambda row: row.softmax(-1)[TARGET])
    with torch.no_grad():
        own = decoder.model(torch.tensor([IDS])).logits[0, -1].softmax(-1)[TARGET]
    assert inputs.at(1.0).value == pytest.approx(float(own), abs=1e-12)


def test_a_model_that_hides_its_embedding_is_refused(monkeypatch):
    decoder = tiny_decoder("gpt2")
    monkeypatch.setattr(decoder.model, "get_input_embeddings", lambda: None)
    found = compare(decoder, IDS, target=TARGET, methods="conductance")
    assert "get_input_embeddings" in found.entries[0].reason


@pytest.mark.parametrize("name", RULES)
def test_without_a_model_there_is_no_conductance(name):
    case = Case(lambda: make_trace(rows=1), token(5))
    with pytest.raises(iglens.UnsupportedModelError, match="runs the model"):
        METHODS[name](case)
