"""Heads and neurons against brute-force quadrature."""

import numpy as np
import oracle
import pytest
import torch
from brute_force import CONTRAST, TOKEN, WRITERS, gradients, vectors

import iglens


@pytest.mark.parametrize("family", WRITERS)
@pytest.mark.parametrize("by", ["head", "neuron"])
def test_brute_force_gives_the_same(opened, family, by):
    unit, target = "probability", CONTRAST
    decoder, trace, result = opened(family, by, target, unit=unit)
    part = 0 if by == "head" else 1
    g = gradients(decoder, family, trace, part, target, unit)
    expected = (vectors(decoder, family, part) * g[:, None]).sum(2)
    if by == "head":
        n_heads = decoder.model.config.num_attention_heads
        expected = expected.unflatten(1, (n_heads, -1)).sum(2)
    inside, segment = result.components, 2 + part
    mine = [
        i
        for i, kind in enumerate(inside.kinds)
        if kind == by and inside.segments[i] == segment
    ]
    assert inside.indices[0, mine].tolist() == list(range(expected.shape[1]))
    np.testing.assert_allclose(inside.credits[:, mine], expected, atol=2e-9)


@pytest.mark.parametrize("unit", ["log_probability", "log_odds"])
def test_other_units_too(opened, unit):
    decoder, trace, result = opened("llama", "head", TOKEN, unit=unit)
    g = gradients(decoder, "llama", trace, 0, TOKEN, unit)
    expected = (vectors(decoder, "llama", 0) * g[:, None]).sum(2)
    expected = expected.unflatten(1, (4, -1)).sum(2)
    inside = result.components
    mine = (inside.segments == 2) & (np.array(inside.kinds) == "head")
    np.testing.assert_allclose(inside.credits[:, mine], expected, atol=1e-7)


@pytest.mark.slow
@pytest.mark.embedded
@pytest.mark.parametrize("by", ["head", "neuron"])
def test_the_last_layer_of_the_embedded_model_is_brute_forces(embedded, by):
    """Gradients by autograd through the model's own norm and head, 192 nodes."""
    ids = embedded.encode("The capital of France is")
    paris = embedded.target(" Paris", ids)
    trace = embedded.trace(ids, [len(ids)], by=by)
    inside = iglens.attribute(trace, paris, by=by).components
    assert inside.certified
    part = 0 if by == "head" else 1
    norm, weight = embedded.model.model.norm, embedded.model.lm_head.weight.double()
    eps, gain = norm.variance_epsilon, norm.weight.detach().double()

    def level_of(states):
        scale = (states.square().mean(1, keepdim=True) + eps).sqrt()
        return ((states / scale * gain) @ weight.T).softmax(1)[:, paris.ids[0]]

    parted, layer = trace.inside[30], 30
    every = [trace.states[29, 0], parted.between[0, 0], trace.states[30, 0]]
    start, end = (every[part].double(), every[part + 1].double())
    g, step = oracle.average_gradient(level_of, start, end), end - start
    with torch.no_grad():
        change = (level_of(end[None]) - level_of(start[None]))[0]
    g = g + (change - g @ step) * step / step.square().sum()
    block = embedded.model.model.layers[layer - 1]
    module = block.self_attn.o_proj if by == "head" else block.mlp.down_proj
    kept = []
    hook = module.register_forward_hook(lambda m, args, out: kept.append(args[0]))
    with torch.no_grad():
        embedded.model(torch.tensor([ids]))
    hook.remove()
    expected = (kept[0][0, -1].double() * (g @ module.weight.detach().double())).numpy()
    if by == "head":
        expected = expected.reshape(9, 64).sum(1)
    here = inside.segments == 2 * (layer - 1) + part
    np.testing.assert_allclose(inside.credits[0, here], expected, atol=2e-6)
