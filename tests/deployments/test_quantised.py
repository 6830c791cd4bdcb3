"""Quantised weights, with the libraries that people quantise with, on the CPU.

GPTQ and AWQ kernels do not install without a GPU: two stand-in layers, which
dequantise in their forward as those do, show that nothing reads their packed weights.
"""

import logging

import numpy as np
import pytest
import torch
import torchao.quantization as ao
import transformers as hf
from deployed import EVERY, IDS, assert_exact
from families import build, full_logits, left_as_it_was, tokenizer
from torch import nn

from iglens import Decoder, UnsupportedModelError, explain
from iglens.model.explicit import is_plain_linear
from iglens.readout import CalledReadout, LinearReadout

SIZES = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16, "vocab_size": 128}
"""Multiples of what the kernels work in."""

pytestmark = pytest.mark.filterwarnings(
    "ignore:MatMul8bitLt. inputs will be cast from:UserWarning",
)


@pytest.fixture(scope="module", autouse=True)
def quiet():
    """bitsandbytes asks for a package of faster kernels, once per layer."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "tiny-llama"
    build("llama", **SIZES).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def plain():
    return explain(Decoder(build("llama", **SIZES)), IDS, **EVERY)


def bits(number, *, head=False, **options):
    """bitsandbytes: blocks alone, as it does by default, or the head too."""
    skipped = {"llm_int8_skip_modules": ["nothing"]} if head else {}
    return hf.BitsAndBytesConfig(**{f"load_in_{number}bit": True}, **skipped, **options)


def weights_only(config):
    return hf.TorchAoConfig(config)


LOADED = {
    "bitsandbytes 8 bit": lambda: bits(8),
    "bitsandbytes 4 bit": lambda: bits(4),
    "bitsandbytes nf4, twice": lambda: bits(
        4, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
    ),
    "bitsandbytes 8 bit, head too": lambda: bits(8, head=True),
    "bitsandbytes 4 bit, head too": lambda: bits(4, head=True),
    "torchao int8": lambda: weights_only(ao.Int8WeightOnlyConfig()),
    "torchao int4": lambda: weights_only(
        ao.IntxWeightOnlyConfig(
            weight_dtype=torch.int4, granularity=ao.granularity.PerGroup(32)
        )
    ),
}


@pytest.mark.parametrize("kind", LOADED)
def test_a_model_that_is_quantised_as_it_is_loaded_is_explained_as_it_runs(
    saved, plain, kind
):
    decoder = Decoder.from_pretrained(saved, quantization_config=LOADED[kind]())
    head = decoder.model.lm_head
    read = isinstance(decoder.readout, LinearReadout)
    assert read == is_plain_linear(head) == ("head" not in kind)
    assert decoder.readout.kind == "explicit"
    # eight bits: in float16, with one choice of outliers for all states of a batch
    atol = 1e-4 if kind == "bitsandbytes 8 bit, head too" else 1e-6
    result = assert_exact(decoder, decoder.model.model.layers, atol=atol)
    assert np.abs(result.levels - plain.levels).max() > 1e-4
    library = "torchao" if "torchao" in kind else "bitsandbytes"
    assert decoder.info.note == f"quantised ({library})"


@pytest.mark.parametrize("number", [4, 8])
def test_a_checkpoint_that_is_quantised_already_loads_by_its_name(
    saved, tmp_path, number
):
    first = Decoder.from_pretrained(saved, quantization_config=bits(number))
    first.model.save_pretrained(tmp_path / "small")
    for options in ({}, {"device": "cpu"}, {"device_map": "cpu"}):
        decoder = Decoder.from_pretrained(tmp_path / "small", **options)
        result = assert_exact(decoder, decoder.model.model.layers)
        assert decoder.info.note == "quantised (bitsandbytes)"
    expected = explain(first, IDS, **EVERY)
    np.testing.assert_allclose(result.levels, expected.levels, atol=1e-6)


def test_the_noise_of_eight_bits_is_measured(saved):
    """Outliers among all tokens of a batch decide what is kept in float16."""
    decoder = Decoder.from_pretrained(saved, quantization_config=bits(8))
    assert decoder.verified.noise.probability > 1e-3
    assert decoder.verified.tolerance.total_variation < 1e-3


CONFIGS = {
    "int8": ao.Int8WeightOnlyConfig,
    "int8, activations too": ao.Int8DynamicActivationInt8WeightConfig,
    "int4": lambda: ao.IntxWeightOnlyConfig(weight_dtype=torch.int4),
    "int4, activations in int8": lambda: ao.Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int4
    ),
    "float8": ao.Float8WeightOnlyConfig,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", CONFIGS)
def test_a_head_that_only_looks_like_a_matrix_is_called(kind, dtype):
    """torchao keeps `nn.Linear`, float dtype and shape; the weight's class differs."""
    model = build("llama", dtype, **SIZES)
    ao.quantize_(model, CONFIGS[kind]())
    head = model.lm_head
    assert type(head) is nn.Linear
    assert head.weight.is_floating_point()
    assert not is_plain_linear(head)
    decoder = Decoder(model)
    assert isinstance(decoder.readout, CalledReadout)
    assert decoder.readout.kind == "explicit"
    result = explain(decoder, IDS, **EVERY)
    assert result.fidelity.max() <= decoder.verified.tolerance.total_variation
    own = full_logits(model, IDS).double().softmax(-1)[range(8), IDS[1:]].numpy()
    atol = 1e-6 if dtype == torch.float32 else 1e-2
    np.testing.assert_allclose(result.final, own, atol=atol)


def test_a_head_that_is_quantised_after_loading_is_refused_not_misread():
    model = build("llama", **SIZES)
    decoder = Decoder(model)
    explain(decoder, IDS, **EVERY)
    ao.quantize_(model, ao.Int8WeightOnlyConfig())
    with pytest.raises(UnsupportedModelError, match="Make a new `Decoder`"):
        explain(decoder, IDS, **EVERY)


class Packed(nn.Module):
    """As GPTQ stores a matrix: eight numbers of four bits in an int32, one scale and
    one zero for each group of inputs; dequantised in the forward.

    A stand-in: `gptqmodel` has no build for this machine.
    """

    def __init__(self, base, group=16):
        super().__init__()
        grouped = base.weight.detach().unflatten(1, (-1, group))
        low, high = grouped.amin(-1, keepdim=True), grouped.amax(-1, keepdim=True)
        scales = (high - low) / 15
        levels = ((grouped - low) / scales).round().to(torch.int32).flatten(1)
        shifts = torch.arange(0, 32, 4, dtype=torch.int32)
        packed = (levels.unflatten(1, (-1, 8)) << shifts).sum(-1, dtype=torch.int32)
        self.register_buffer("qweight", packed)
        self.register_buffer("scales", scales)
        self.register_buffer("zeros", low)
        self.register_buffer("shifts", shifts)
        self.bias = base.bias
        self.in_features, self.out_features = base.in_features, base.out_features

    def dequantised(self):
        levels = (self.qweight[:, :, None] >> self.shifts) & 15
        shape = (self.out_features, self.scales.shape[1], -1)
        return (levels.reshape(shape) * self.scales + self.zeros).flatten(1)

    def forward(self, hidden):
        return nn.functional.linear(hidden, self.dequantised(), self.bias)


class Scaled(Packed):
    """As AWQ: activations are divided by what the weights were multiplied with."""

    def __init__(self, base):
        strength = base.weight.detach().abs().mean(0).sqrt().clamp(min=1e-3)
        grown = nn.Linear(base.in_features, base.out_features, bias=False)
        grown.weight.data = base.weight.detach() * strength
        super().__init__(grown)
        self.register_buffer("strength", strength)

    def forward(self, hidden):
        return super().forward(hidden / self.strength)


@pytest.mark.parametrize("stand_in", [Packed, Scaled])
def test_packed_layers_run_themselves_in_the_blocks_and_in_the_head(stand_in, plain):
    model = build("llama", **SIZES)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear):
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, stand_in(module))
    decoder = Decoder(model)
    assert isinstance(decoder.readout, CalledReadout)
    assert decoder.readout.kind == "explicit"
    with left_as_it_was(model):
        result = assert_exact(decoder, model.model.layers)
    assert np.abs(result.levels - plain.levels).max() > 1e-3
