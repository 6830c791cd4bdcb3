"""Heads, neurons and sources of a model with weights made by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from brute_force import AT, IDS, TOKEN
from transformers import GPT2Config, GPT2LMHeadModel

import iglens
from iglens.attribution import strokes


def plain(**changes):
    """A GPT-2 of one block that tests may plant weights in."""
    torch.manual_seed(0)
    sizes = {"n_layer": 1, "n_embd": 16, "n_head": 4, "vocab_size": 23}
    model = GPT2LMHeadModel(GPT2Config(**sizes | changes, tie_word_embeddings=False))
    return model.double().eval()


def heads_of(model, by="head", target=TOKEN):
    decoder = iglens.Decoder(model)
    trace = decoder.trace(IDS, [6], by=by)
    result = iglens.attribute(trace, target, by=by)
    inside = result.components
    mine = np.array(inside.kinds) == ("source" if by == "source" else by)
    return result, inside.credits[0, mine]


def test_heads_that_cancel_get_opposite_credits_and_together_none():
    model = plain()
    attention = model.transformer.h[0].attn
    with torch.no_grad():
        qkv = attention.c_attn.weight.view(16, 3, 4, 4)
        qkv[:, :, 1] = qkv[:, :, 0]
        attention.c_attn.bias.zero_()
        attention.c_proj.bias.fill_(0.1)
        out = attention.c_proj.weight.view(4, 4, 16)
        out[1] = -out[0]
        out[2:] = 0
    result, heads = heads_of(model)
    bias = result.components.kinds.index("bias")
    rest = result.credits[0, 0] - result.components.credits[0, bias]
    assert abs(rest) < 1e-12 < abs(heads[0])
    assert heads[0] == pytest.approx(-heads[1], abs=1e-12)
    np.testing.assert_allclose(heads[2:], 0, atol=1e-15)


def test_permuted_heads_have_permuted_credits():
    model, order = plain(), [2, 0, 3, 1]
    _, before = heads_of(model)
    attention = model.transformer.h[0].attn
    with torch.no_grad():
        for tensor in (attention.c_attn.weight, attention.c_attn.bias):
            view = tensor.view(*tensor.shape[:-1], 3, 4, 4)
            view.copy_(view[..., order, :].clone())
        view = attention.c_proj.weight.view(4, 4, 16)
        view.copy_(view[order].clone())
    _, after = heads_of(model)
    np.testing.assert_allclose(after, before[order], atol=1e-12)


def test_a_planted_neuron_gets_the_credit():
    """One neuron fires and writes the answer's direction; all others write nothing."""
    model = plain(activation_function="relu")
    mlp, neuron, token = model.transformer.h[0].mlp, 37, 7
    with torch.no_grad():
        mlp.c_fc.weight.zero_()
        mlp.c_fc.bias.zero_()
        mlp.c_fc.bias[neuron] = 1.0
        mlp.c_proj.weight.zero_()
        mlp.c_proj.bias.zero_()
        mlp.c_proj.weight[neuron] = 8 * model.lm_head.weight[token]
    result, neurons = heads_of(model, "neuron")
    assert abs(result.credits[0, 1]) > 1e-3
    assert neurons[neuron] == pytest.approx(result.credits[0, 1], abs=1e-12)
    assert np.count_nonzero(neurons) == 1


def test_a_planted_head_reads_the_planted_token():
    """One head looks at one token alone, and writes what that token is."""
    model, head, source = plain(), 2, 3
    attention = model.transformer.h[0].attn
    with torch.no_grad():
        attention.c_attn.bias.zero_()
        attention.c_proj.bias.zero_()
        out = attention.c_proj.weight.view(4, 4, 16)
        out[[0, 1, 3]] = 0
        marked = model.transformer.h[0].ln_1(
            model.transformer.wte.weight[IDS] + model.transformer.wpe.weight[: len(IDS)]
        )
        keys = attention.c_attn.weight[:, 16:32].view(16, 4, 4)
        queries = attention.c_attn.weight[:, :16].view(16, 4, 4)
        sharp = torch.linalg.pinv(marked)[:, source]
        keys[:, head] = sharp[:, None] * 60
        last = torch.linalg.pinv(marked)[:, len(IDS) - 1]
        queries[:, head] = last[:, None] * 60
    result, _ = heads_of(model)
    result, _pairs = heads_of(model, "source")
    inside = result.components
    best = inside.largest(0, 1)[0]
    assert (inside.indices[0, best], inside.sources[0, best]) == (head, source)
    assert inside.credits[0, best] == pytest.approx(result.credits[0, 0], rel=1e-6)


def test_a_part_that_writes_nothing_gets_nothing():
    model = plain()
    with torch.no_grad():
        model.transformer.h[0].attn.c_proj.weight.view(4, 4, 16)[1] = 0
    _, heads = heads_of(model)
    assert heads[1] == 0
    assert np.abs(np.delete(heads, 1)).min() > 0


def test_where_rules_differ_on_a_part_lines_are_integrated_anew(opened, monkeypatch):
    """More exactly: as for parts that are longer than the step."""
    _, trace, expected = opened("llama", "head")
    asked, given = [], strokes.averaged_gradient

    def watched(*args, sizes, **options):
        asked.append(sizes)
        found = given(*args, sizes=sizes, **options)
        apart = found.difference if len(asked) > 1 else found.difference + 1e-3
        return replace(found, difference=apart)

    monkeypatch.setattr(strokes, "averaged_gradient", watched)
    inside = iglens.attribute(trace, TOKEN, by="head").components
    assert len(asked) == 2
    assert (asked[1] > asked[0]).all()
    assert inside.certified
    np.testing.assert_allclose(inside.credits, expected.components.credits, atol=1e-9)


def test_misses_of_opposite_sign_do_not_hide_each_other(opened, monkeypatch):
    """Parallel parts have several lines, whose residuals may add up to nothing."""
    _, trace, _ = opened("neox", "head")
    given = strokes.averaged_gradient

    def missing(readout, starts, ends, *args, **options):
        found = given(readout, starts, ends, *args, **options)
        signs = torch.tensor([1.0, -1.0]).double().repeat_interleave(len(AT))
        signs = signs.repeat(len(starts) // len(signs))[:, None]
        along = found.step / found.step.square().sum(1, keepdim=True)
        return replace(found, gradient=found.gradient + signs * 1e-3 * along)

    monkeypatch.setattr(strokes, "averaged_gradient", missing)
    inside = iglens.attribute(trace, TOKEN, by="head", strict=False).components
    np.testing.assert_allclose(
        inside.residual[:, np.unique(inside.segments)], 1e-3, rtol=1e-2
    )
