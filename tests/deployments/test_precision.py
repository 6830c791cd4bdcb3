"""How a model computes: its attention, its dtype, its head."""

import numpy as np
import pytest
import torch
from deployed import EVERY, IDS, assert_exact, true_levels
from families import FAMILIES, build, oracle, part, states_by_hooks, tokenizer

from iglens import Decoder, attribute, explain
from iglens.readout import LinearReadout

LOW = [
    ("llama", torch.bfloat16),
    ("gemma2", torch.float16),
    ("gpt2", torch.float16),
    ("granite", torch.bfloat16),
]


def saved(folder, name, dtype=torch.float32):
    build(name, dtype).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("attention", ["eager", "sdpa", "flex_attention"])
@pytest.mark.parametrize("name", ["llama", "mistral"])
@pytest.mark.filterwarnings(
    "ignore:_compile flag on create_block_mask:DeprecationWarning",
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning",
    "ignore:flex_attention called without torch.compile:UserWarning",
)
def test_attention_implementations_give_one_map_within_their_noise(
    tmp_path, name, attention
):
    folder = saved(tmp_path, name)
    with torch.compiler.set_stance("force_eager"):  # compiling takes most of a minute
        decoder = Decoder.from_pretrained(folder, attn_implementation=attention)
        result = assert_exact(decoder, part(decoder.model, FAMILIES[name].blocks))
    assert decoder.model.config._attn_implementation == attention
    settings = result.provenance.settings
    assert settings["attn_implementation"] == attention
    plain = Decoder(build(name))
    expected = explain(plain, IDS, **EVERY)
    noise = plain.verified.noise.probability
    np.testing.assert_allclose(result.levels, expected.levels, atol=8 * noise)


@pytest.mark.parametrize("name", ["llama", "llama tied", "gpt2", "gpt2 untied"])
def test_tied_and_untied_heads_are_read_where_they_lie(tmp_path, name):
    decoder = Decoder.from_pretrained(saved(tmp_path, name))
    head, embedding = decoder.model.lm_head, decoder.model.get_input_embeddings()
    assert (head.weight is embedding.weight) == FAMILIES[name].tied
    assert isinstance(decoder.readout, LinearReadout)
    assert decoder.readout.weights()[0].data_ptr() == head.weight.data_ptr()
    assert_exact(decoder, part(decoder.model, FAMILIES[name].blocks))


@pytest.mark.parametrize(("name", "dtype"), LOW)
def test_low_precision_keeps_its_states_and_is_read_in_float32(tmp_path, name, dtype):
    decoder = Decoder.from_pretrained(saved(tmp_path, name, dtype))
    assert decoder.readout.dtype == dtype
    trace = decoder.trace(IDS, range(1, len(IDS)))
    assert trace.states.dtype == dtype
    own = decoder.model
    assert torch.equal(trace.states, states_by_hooks(own, name, IDS)[:, : len(IDS) - 1])
    assert decoder.readout.precision == torch.float32
    result = attribute(trace)
    truth = oracle(own, name, trace.states)[:, range(len(IDS) - 1), IDS[1:]].T
    np.testing.assert_allclose(result.levels, truth, atol=1e-5)


@pytest.mark.parametrize(("name", "dtype"), LOW)
def test_what_the_storage_dtype_costs_is_reported_and_not_gated(name, dtype):
    model = build(name, dtype)
    decoder = Decoder(model)
    result = explain(decoder, IDS, **EVERY)
    own = true_levels(model, part(model, FAMILIES[name].blocks))[:, -1]
    np.testing.assert_allclose(result.model_value, own, atol=1e-6)
    gap = np.abs(result.final - own)
    np.testing.assert_allclose(result.precision_gap, gap, atol=1e-6)
    assert result.precision_gap.max() > 1e-6
    assert result.fidelity.max() <= decoder.verified.tolerance.total_variation
    single = explain(Decoder(build(name)), IDS, **EVERY)
    assert result.precision_gap.max() > 100 * single.precision_gap.max()


def test_a_wider_dtype_may_be_chosen_as_the_model_is_loaded(tmp_path):
    folder = saved(tmp_path, "llama", torch.bfloat16)
    decoder = Decoder.from_pretrained(folder, dtype="float32")
    result = assert_exact(decoder, decoder.model.model.layers)
    assert result.precision_gap.max() < 1e-6
