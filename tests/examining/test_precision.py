"""What low precision costs, against models that are converted here."""

import copy
from collections import namedtuple

import psutil
import pytest
import torch
from families import (
    build,
    full_logits,
    left_as_it_was,
    tokenizer,
    total_variation,
)
from torch import nn

from iglens import Decoder, examine
from iglens.examining import precision
from iglens.examining.facts import quantisation
from iglens.examining.measure import measure, sample_text
from iglens.examining.precision import (
    _below_limit,
    float32_copy,
    free_bytes,
    precision_cost,
)

HALF = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
def test_the_cost_is_that_of_the_converted_model(name, dtype):
    model = build(name, dtype)
    decoder = Decoder(model, tokenizer())
    sample = sample_text(decoder)
    found = examine(decoder)
    truth = full_logits(copy.deepcopy(model).float(), sample.texts[0])[:-1]
    own = full_logits(model, sample.texts[0])[:-1]
    cost = found.precision
    assert cost.not_measured is None
    assert cost.dtype == str(dtype).removeprefix("torch.")
    expected = total_variation(own, truth)
    assert cost.float32_model.largest == pytest.approx(expected, rel=1e-4)
    gap = (own.double().softmax(-1) - truth.double().softmax(-1)).abs().max()
    assert cost.float32_model.probability == pytest.approx(float(gap), rel=1e-4)
    assert 0 < cost.float32_model.mean < expected


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_reading_in_float32_differs_from_the_models_own_probabilities(dtype):
    model = build("llama", dtype)
    decoder = Decoder(model, tokenizer())
    found = examine(decoder).fidelity
    assert found.own.largest <= found.tolerance
    assert 0 < found.precise.probability <= 2 * found.precise.largest
    sample = sample_text(decoder)
    trace = decoder.trace(sample.texts[0], range(1, len(sample.texts[0])))
    wide = copy.deepcopy(model).float()
    with torch.no_grad():
        truth = wide.lm_head(wide.model.norm(trace.states[-1].float()))
    expected = total_variation(trace.logits, truth)
    assert found.precise.largest == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_nothing_is_lost_where_nothing_is_shortened(dtype):
    found = examine(build("llama", dtype), tokenizer())
    assert found.precision.float32_model is None
    assert "as they are" in found.precision.not_measured
    assert found.readout.precision == str(dtype).removeprefix("torch.")
    assert found.fidelity.precise.largest < 1e-6


def test_a_stream_in_float32_does_not_hide_half_precision_weights():
    """As in Mamba, whose blocks add up in float32 whatever their weights are."""
    import transformers as hf
    from families import randomise

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 97}
    config = hf.MambaConfig(**sizes, state_size=4, residual_in_fp32=True)
    model = randomise(hf.MambaForCausalLM(config)).to(torch.bfloat16).eval()
    found = examine(model)
    assert found.readout.dtype == "float32"
    assert found.precision.dtype == "bfloat16"
    assert found.precision.float32_model.largest > 0


def test_the_copy_shares_what_was_shared_and_leaves_the_model_alone():
    model = build("llama tied", torch.bfloat16).train()
    model.model.register_buffer("steps", torch.arange(3))
    with left_as_it_was(model):
        copied = float32_copy(model)
    assert copied.lm_head.weight is copied.model.embed_tokens.weight
    assert {p.dtype for p in copied.parameters()} == {torch.float32}
    assert copied.model.steps.dtype == torch.int64
    pairs = zip(model.parameters(), copied.parameters(), strict=True)
    for own, other in pairs:
        assert torch.equal(own.float(), other)
        assert own.untyped_storage().data_ptr() != other.untyped_storage().data_ptr()


Memory = namedtuple("Memory", "available")


def test_a_copy_that_does_not_fit_is_not_made(monkeypatch):
    decoder = Decoder(build("llama", torch.bfloat16), tokenizer())
    traces = measure(decoder).traces
    needed = sum(4 * p.numel() for p in decoder.model.parameters())
    room = int(needed / precision.SHARE) + 1
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(room))
    assert precision_cost(decoder, traces).not_measured is None
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(room - 2))
    found = precision_cost(decoder, traces)
    assert found.float32_model is None
    assert "free on cpu" in found.not_measured


def test_the_limit_of_a_container_counts(tmp_path):
    assert _below_limit(tmp_path) is None
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 600\ninactive_file 100\n")
    assert _below_limit(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    assert _below_limit(tmp_path) == 400


def test_free_memory_is_known_of_the_cpu_and_not_of_anything():
    assert 0 < free_bytes(torch.device("cpu")) <= psutil.virtual_memory().total
    assert free_bytes(torch.device("meta")) is None


def test_a_quantised_model_is_not_converted():
    model = build("llama", torch.bfloat16)
    assert quantisation(model) is None
    model.config.quantization_config = {"quant_method": "awq", "bits": 4}
    found = examine(model, tokenizer())
    assert found.model.quantisation == "awq"
    assert "quantised (awq)" in found.precision.not_measured


class Packed(nn.Module):
    """Whole numbers and a scale, as quantised layers keep them."""

    def __init__(self, linear):
        super().__init__()
        self.scale = linear.weight.detach().abs().max() / 127
        codes = (linear.weight.detach() / self.scale).round().to(torch.int8)
        self.codes = nn.Parameter(codes, requires_grad=False)

    def forward(self, x):
        return nn.functional.linear(x, self.codes.to(x.dtype) * self.scale)


def test_weights_of_whole_numbers_are_quantised():
    model = build("llama", torch.bfloat16)
    model.lm_head = Packed(model.lm_head)
    found = examine(model, tokenizer())
    assert found.verdict == "exact"
    assert found.model.quantisation == "int8"
    assert list(found.model.dtypes) == ["bfloat16", "int8"]
    assert "quantised (int8)" in found.precision.not_measured
    assert not found.readout.streamed


def test_weights_of_a_class_of_their_own_are_quantised():
    quantising = pytest.importorskip("torchao.quantization")
    model = build("llama", torch.bfloat16)
    quantising.quantize_(model, quantising.Int8WeightOnlyConfig())
    assert "Int8" in quantisation(model) or "Quantized" in quantisation(model)


def test_an_offloaded_model_is_not_copied():
    import accelerate

    model = build("llama", torch.bfloat16)
    accelerate.cpu_offload(model)
    found = examine(model, tokenizer())
    assert found.model.devices["offloaded"] > 0
    assert "offloaded" in found.precision.not_measured


class Stubborn(torch.nn.Identity):
    """Cannot be copied."""

    def __deepcopy__(self, memo):
        raise TypeError("there is\nonly one of me")


def test_a_model_that_cannot_be_copied_says_so():
    model = build("llama", torch.bfloat16)
    model.model.extra = Stubborn()
    found = examine(model, tokenizer()).precision
    assert found.float32_model is None
    assert "there is only one of me" in found.not_measured
