"""What cannot run says why: weights without values, inputs that do not fit."""

import pytest
import torch
import transformers as hf
from accelerate import dispatch_model, init_empty_weights
from families import FAMILIES, SIZES, Handmade, build, left_as_it_was, some_ids
from torch import nn

from iglens import (
    ArgumentError,
    ArgumentTypeError,
    Declaration,
    Decoder,
    NonFiniteError,
    UnsupportedModelError,
    explain,
)
from iglens.model.checks import weights_without_values

IDS = some_ids()
EVERY = {"positions": "all", "max_new_tokens": 0}


def without_any():
    with init_empty_weights():
        return hf.LlamaForCausalLM(FAMILIES["llama"].config(**SIZES))


def without(*names):
    model = build("llama")
    for name in names:
        model.get_submodule(name).to("meta")
    return model


META = {
    "a whole model": (without_any, "model.embed_tokens.weight"),
    "the embedding": (lambda: without("model.embed_tokens"), "embed_tokens.weight"),
    "one matrix": (
        lambda: without("model.layers.1.mlp.up_proj"),
        r"has 1 weights .*model\.layers\.1\.mlp\.up_proj\.weight",
    ),
    "a norm": (lambda: without("model.norm"), r"has 1 weights .*model\.norm\.weight"),
    "the head": (lambda: without("lm_head"), r"has 1 weights .*lm_head\.weight"),
    "a buffer": (lambda: without("model.rotary_emb"), "rotary_emb.inv_freq"),
}


@pytest.mark.parametrize("kind", META)
def test_weights_that_are_only_shapes_are_named(kind):
    make, named = META[kind]
    model = make()
    with pytest.raises(UnsupportedModelError, match=named) as caught:
        Decoder(model)
    message = str(caught.value)
    assert "on the device 'meta'" in message
    assert "Load them" in message
    assert "\n" not in message


def test_a_head_that_loses_its_values_later_is_refused():
    model = build("llama")
    decoder = Decoder(model)
    explain(decoder, IDS, **EVERY)
    model.lm_head.to("meta")
    with pytest.raises((UnsupportedModelError, NonFiniteError)):  # logits are anything
        explain(decoder, IDS, **EVERY)
    with pytest.raises(UnsupportedModelError, match=r"lm_head\.weight"):
        Decoder(model)


def test_weights_that_are_offloaded_are_not_missing_and_others_are(tmp_path):
    assert weights_without_values(build("llama")) == []
    places = {"model": "cpu", "lm_head": "disk"}
    model = dispatch_model(
        build("llama"), places, main_device="cpu", offload_dir=str(tmp_path)
    )
    assert model.lm_head.weight.device.type == "meta"
    assert weights_without_values(model) == []
    model.model.layers[0].mlp.up_proj.to("meta")
    missing = ["model.layers.0.mlp.up_proj.weight"]
    assert weights_without_values(model) == missing


class LacksAKernel(Handmade):
    def forward(self, input_ids):
        raise ImportError("pip install zorg-kernels")


class Asserts(Handmade):
    def forward(self, input_ids):
        assert input_ids.shape[1] > 99, "texts of 100 tokens, please"
        return super().forward(input_ids)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (LacksAKernel, "ImportError: pip install zorg-kernels"),
        (Asserts, "AssertionError: texts of 100 tokens, please"),
    ],
)
def test_what_a_model_raises_is_quoted_in_one_line(kind, reason):
    with pytest.raises(UnsupportedModelError, match=reason) as caught:
        Decoder(kind())
    assert "\n" not in str(caught.value)


def declared(inputs):
    return Declaration(inputs=inputs)


def some_bug(ids):
    return {"input_ids": ids, "zorg": {}["missing"]}


INPUTS = {
    "another name": (
        lambda ids: {"ids": ids},
        UnsupportedModelError,
        r"on what `Declaration\(inputs=...\)` gives it \(ids\): TypeError.*takes input",
    ),
    "too much": (
        lambda ids: {"input_ids": ids, "zorg": ids},
        UnsupportedModelError,
        r"gives it \(input_ids, zorg\): TypeError: .*'zorg'",
    ),
    "a bug of its own": (
        some_bug,
        ArgumentError,
        r"fails on token ids of shape \(1, 9\) \(texts, tokens\): KeyError: 'missing'",
    ),
    "no names": (
        lambda ids: [ids],
        ArgumentTypeError,
        "gives a list; it must give the forward's arguments by name",
    ),
    "another text": (
        lambda ids: {"input_ids": torch.full_like(ids, 3)},
        UnsupportedModelError,
        "the same logits whatever the last token is",
    ),
    "the text in reverse": (
        lambda ids: {"input_ids": ids.flip(1)},
        UnsupportedModelError,
        "changing the last token",
    ),
    "less of the text": (
        lambda ids: {"input_ids": ids[:, 1:]},
        UnsupportedModelError,
        "gives logits for 8 of 9 tokens",
    ),
    "one text of several": (
        lambda ids: {"input_ids": ids[:1]},
        UnsupportedModelError,
        "1 rows of logits for [23] texts",
    ),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_declared_inputs_that_do_not_hold_say_what_differs(kind):
    inputs, error, reason = INPUTS[kind]
    model = Handmade()
    with left_as_it_was(model), pytest.raises(error, match=reason) as caught:
        Decoder(model, declaration=declared(inputs))
    assert "\n" not in str(caught.value)


def test_declared_inputs_that_hold_are_taken():
    model = Handmade()
    decoder = Decoder(model, declaration=declared(lambda ids: {"input_ids": ids}))
    found = explain(decoder, [3, 4, 5], **EVERY)
    expected = explain(Decoder(model), [3, 4, 5], **EVERY)
    assert found.levels == pytest.approx(expected.levels, abs=1e-7)


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(16, 16) for _ in range(4))

    def forward(self, hidden):
        return hidden + sum(torch.tanh(expert(hidden)) for expert in self.experts)


class Tower(Handmade):
    """Another numbered row runs before the blocks, and experts inside them."""

    def __init__(self):
        super().__init__()
        self.tower = nn.Sequential(*(nn.Linear(16, 16) for _ in range(5)))
        self.body = nn.Sequential(*self.body, Experts())

    def forward(self, input_ids):
        return self.head(self.norm(self.body(self.tower(self.embed(input_ids)))))


@pytest.mark.parametrize(
    ("blocks", "reason"),
    [
        ("tower", "tower: reading the last state misses the model"),
        ("norm", "which holds no stack of modules of Tower.*tower .5 calls., body .4"),
        ("body.3.experts", "which holds no stack of modules of Tower.*body .4 calls."),
        ("layers", "which is no module of Tower.*tower .5 calls., body .4 calls."),
        ("body.0", "which holds no stack of modules of Tower"),
        ("", "which holds no stack of modules of Tower"),
    ],
)
def test_declared_blocks_that_do_not_hold_list_what_was_found(blocks, reason):
    model = Tower()
    with left_as_it_was(model), pytest.raises(UnsupportedModelError, match=reason):
        Decoder(model, declaration=Declaration(blocks=blocks))
    assert Decoder(model, declaration=Declaration(blocks="body")).n_layers == 4
