"""Experts, held against full passes in which one of them is left out."""

import functools

import pytest
import torch
import transformers as hf
from families import SIZES, build, left_as_it_was, randomise, some_ids

from iglens import Decoder
from iglens.inside import Mixture, Writing
from iglens.model.inside.between import capture_parts
from iglens.model.inside.writings import writing_hooks

TEXT, PLACES = torch.tensor(some_ids(12)), torch.tensor([0, 4, 10])

CONFIGS = {
    "qwen2 moe": hf.Qwen2MoeConfig(
        **SIZES,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=24,
        num_experts=4,
        num_experts_per_tok=2,
    ),
    "granite moe": hf.GraniteMoeConfig(
        **SIZES, num_local_experts=4, num_experts_per_tok=2, residual_multiplier=0.6
    ),
    "gpt-oss": hf.GptOssConfig(
        **SIZES, head_dim=8, num_local_experts=4, num_experts_per_tok=3
    ),
    "afmoe": hf.AfmoeConfig(
        **SIZES,
        head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        num_dense_layers=1,
        moe_intermediate_size=16,
        layer_types=["full_attention"] * 3,
    ),
}


@functools.cache
def decoder_of(family, dtype=torch.float64):
    if family not in CONFIGS:
        return Decoder(build(family, dtype))
    model = hf.AutoModelForCausalLM.from_config(CONFIGS[family])
    return Decoder(randomise(model).to(dtype).eval())


def mixtures(decoder):
    """The mixture of every block that has one, by layer, with its states."""
    args = (decoder._runner, decoder.verified.stream, decoder.sublayers)
    layers = range(decoder.n_layers + 1)
    with writing_hooks(*args, [PLACES], layers[1:]) as writings:
        (taken,) = capture_parts(*args, [TEXT], [PLACES], layers)
    states = taken.captured.states
    found = {}
    for layer in layers[1:]:
        *_, last = writings.of(
            0, layer, states[layer - 1], states[layer], taken.between[layer]
        )
        if decoder.sublayers.blocks[layer - 1].parts[-1].experts:
            found[layer] = last
    return found, taken


def without_slot(decoder, layer, slot):
    """The update of a block's last part when one slot has no weight."""
    part = decoder.sublayers.blocks[layer - 1].parts[-1]

    def before(module, args):
        hidden, ids, weights = args
        weights = weights.clone()
        weights[..., slot] = 0
        return hidden, ids, weights

    module = decoder.model.get_submodule(part.mixture)
    handle = module.register_forward_pre_hook(before)
    try:
        _, taken = mixtures(decoder)
    finally:
        handle.remove()
    return taken.captured.states[layer] - taken.between[layer][-1]


FAMILIES = ["mixtral", "qwen3 moe", "qwen2 moe", "granite moe", "gpt-oss"]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_expert_is_what_the_pass_lacks_without_it(family):
    decoder = decoder_of(family)
    found, taken = mixtures(decoder)
    assert len(found) == decoder.n_layers
    for layer, mixture in found.items():
        assert isinstance(mixture, Mixture), mixture
        update = taken.captured.states[layer] - taken.between[layer][-1]
        gradient = torch.randn(update.shape, generator=torch.Generator().manual_seed(1))
        gradient = gradient.double()
        shares = mixture.experts(gradient)
        for slot in range(shares.shape[1]):
            lost = update - without_slot(decoder, layer, slot)
            assert lost.abs().max() > 0.01
            torch.testing.assert_close(
                shares[:, slot], (gradient * lost).sum(1), rtol=1e-7, atol=1e-7
            )


@pytest.mark.parametrize("family", FAMILIES)
def test_only_shared_experts_and_rounding_are_left(family):
    for mixture in mixtures(decoder_of(family))[0].values():
        gradient = mixture.update  # all that is left has a share in this direction
        others = mixture.others(gradient, mixture.experts(gradient))
        share = others.abs() / gradient.square().sum(1)
        if family == "qwen2 moe":
            assert (share > 1e-3).any()
        else:
            assert (share < 1e-9).all()


def test_experts_pass_through_the_frozen_post_norm():
    decoder = decoder_of("afmoe")
    found, _ = mixtures(decoder)
    assert sorted(found) == [2, 3]  # the first block has none
    for layer, mixture in found.items():
        norm = decoder.model.model.layers[layer - 1].post_mlp_layernorm
        assert mixture.norm is not None
        gradient = mixture.update.flip(1)
        shares = mixture.experts(gradient)
        for slot in range(2):
            given = mixture.outputs(slot, slice(None))
            scaled = given / mixture.norm.scales[:, None] * norm.weight
            expected = (gradient * scaled).sum(1)
            torch.testing.assert_close(shares[:, slot], expected, rtol=1e-5, atol=1e-5)


def test_ids_and_weights_are_the_routers():
    decoder = decoder_of("mixtral")
    routed = []
    router = decoder.model.model.layers[1].mlp.gate
    handle = router.register_forward_hook(lambda *a: routed.append(a[-1]))
    found, _ = mixtures(decoder)
    handle.remove()
    _, weights, ids = routed[0]
    assert torch.equal(found[2].ids, ids[PLACES])
    assert torch.equal(found[2].weights, weights[PLACES])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_dtypes_are_mixed_alike(dtype):
    for family in ("mixtral", "gpt-oss"):
        for mixture in mixtures(decoder_of(family, dtype))[0].values():
            gradient = mixture.update
            others = mixture.others(gradient, mixture.experts(gradient))
            within = 64 * torch.finfo(dtype).eps
            assert (others.abs() <= within * gradient.square().sum(1)).all()


def test_experts_that_their_weights_do_not_scale_are_refused():
    """The sum over slots is no sum if a weight enters twice."""
    decoder = Decoder(build("mixtral", torch.float64))
    assert decoder.sublayers.blocks
    mixture = decoder.model.model.layers[0].mlp.experts
    mixture.register_forward_pre_hook(lambda module, args: (*args[:2], args[2] ** 2))
    mixture.register_forward_hook(lambda module, args, output: output + 1)
    found, _ = mixtures(decoder)
    assert "do not add up" in found[1]
    assert isinstance(found[2], Mixture)


def test_the_model_is_left_as_it_was():
    decoder = decoder_of("mixtral")
    with left_as_it_was(decoder.model):
        found, _ = mixtures(decoder)
        found[1].experts(found[1].update)


def test_dense_blocks_of_a_mixture_have_neurons():
    decoder = decoder_of("afmoe")
    args = (decoder._runner, decoder.verified.stream, decoder.sublayers)
    layers = range(decoder.n_layers + 1)
    with writing_hooks(*args, [PLACES], [1]) as writings:
        (taken,) = capture_parts(*args, [TEXT], [PLACES], layers)
    states = taken.captured.states
    _, mlp = writings.of(0, 1, states[0], states[1], taken.between[1])
    assert isinstance(mlp, Writing)
    assert mlp.neurons(mlp.update).shape == (3, 48)
