"""Paths through the parts of blocks: they add up to layers, in every order of parts."""

import itertools
import math
from dataclasses import replace

import families
import numpy as np
import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM

import iglens
from iglens.attribution import interaction
from iglens.attribution.path import check_level
from iglens.errors import ArgumentError
from iglens.inside.parted import Parted
from iglens.readout.lens import AffineLens

SEQUENTIAL = ["llama", "gemma3", "gpt2", "qwen3", "olmo2"]
PARALLEL = ["neox", "phi"]
IDS = [3, 1, 4, 1, 5, 9]


@pytest.fixture(scope="module")
def traced():
    """Decoder and trace of a family, built once."""
    known = {}

    def get(name):
        if name not in known:
            decoder = iglens.Decoder(families.build(name).double())
            known[name] = decoder, decoder.trace(IDS, [2, 4, 6], by="sublayer")
        return known[name]

    return get


def level(decoder, state, token):
    """The oracle: the token's probability in the whole softmax, float64."""
    return decoder.readout.logits(state[None])[0].double().softmax(0)[token]


@pytest.mark.parametrize("family", SEQUENTIAL + PARALLEL)
@pytest.mark.parametrize("unit", ["probability", "log_odds"])
def test_parts_add_up_to_layers(traced, family, unit):
    _, trace = traced(family)
    target = iglens.Target((7,), "x")
    parts = iglens.attribute(trace, target, by="sublayer", unit=unit)
    layers = iglens.attribute(trace, target, unit=unit)
    assert len(parts.segments) > len(layers.segments)
    np.testing.assert_allclose(parts.by_layer.credits, layers.credits, atol=1e-12)
    np.testing.assert_allclose(parts.completeness, 0, atol=1e-12)
    assert parts.by_layer.segments == layers.segments


@pytest.mark.parametrize("family", SEQUENTIAL)
def test_a_part_is_the_change_at_the_state_between(traced, family):
    decoder, trace = traced(family)
    result = iglens.attribute(trace, iglens.Target((7,), "x"), by="sublayer")
    point = 1
    for layer, parted in trace.inside.items():
        assert parted.kind == "sequential"
        for states in [*parted.between, trace.states[trace.layers.index(layer)]]:
            expected = [float(level(decoder, state, 7)) for state in states]
            np.testing.assert_allclose(result.levels[:, point], expected, atol=1e-12)
            point += 1


@pytest.mark.parametrize("family", PARALLEL)
def test_parallel_parts_get_their_mean_over_both_orders(traced, family):
    decoder, trace = traced(family)
    result = iglens.attribute(trace, iglens.Target((7,), "x"), by="sublayer")
    for layer, parted in trace.inside.items():
        assert parted.kind == "parallel"
        start, end = trace.states[layer - 1], trace.states[layer]
        one = parted.between[0]
        for row in range(3):
            h, a, b = start[row], start[row] + one[row], end[row] - one[row]
            f = [float(level(decoder, state, 7)) for state in (h, a, b, end[row])]
            at = 2 * (layer - 1)
            np.testing.assert_allclose(
                result.credits[row, at], (f[1] - f[0] + f[3] - f[2]) / 2, atol=1e-12
            )
    between = result.rank[:, 1::2]
    assert (between == 0).all()
    assert np.isnan(result.lens_kl[:, 1::2]).all()
    assert (result.top_ids[:, 1::2] == -1).all()


@pytest.mark.parametrize("n", [2, 3, 4])
def test_strokes_are_the_shapley_value(n):
    torch.manual_seed(n)
    value = dict(enumerate(torch.randn(2**n, dtype=torch.float64).tolist()))
    between = torch.zeros(n - 1, 1, 3)
    names = tuple(map(str, range(n)))
    parted = Parted("parallel", names, (None,) * n, between)
    assert parted.n_inner == 2**n - 2
    for part in range(n):
        expected = 0.0
        for order in itertools.permutations(range(n)):
            before = sum(2**i for i in order[: order.index(part)])
            expected += (value[before + 2**part] - value[before]) / math.factorial(n)
        strokes = parted.strokes(part)
        found = sum(weight * (value[b] - value[a]) for a, b, weight in strokes)
        assert found == pytest.approx(expected)
        assert sum(weight for *_, weight in strokes) == pytest.approx(1)


def test_every_selection_of_parallel_parts_is_read():
    torch.manual_seed(0)
    start, end, one, two = torch.randn(4, 2, 5, dtype=torch.float64)
    parted = Parted("parallel", ("a", "b", "c"), (None,) * 3, torch.stack([one, two]))
    three = end - start - one - two
    expected = [one, two, one + two, three, one + three, two + three]
    for found, parts in zip(parted.inner(start, end), expected, strict=True):
        torch.testing.assert_close(found, start + parts)
    with pytest.raises(ArgumentError, match="5 parts side by side"):
        Parted("parallel", tuple("abcde"), (None,) * 5, torch.zeros(4, 1, 2))


def three_beside(trace, layer, seed=0):
    """The trace with a block whose update is, for the occasion, of three parts."""
    generator = torch.Generator().manual_seed(seed)
    start, end = (trace.states[trace.layers.index(at)] for at in (layer - 1, layer))
    noise = torch.randn(2, *start.shape, generator=generator, dtype=start.dtype)
    between = noise * (end - start).square().mean(1).sqrt()[None, :, None]
    parted = Parted("parallel", ("a", "b", "c"), (None,) * 3, between)
    return replace(trace, inside={layer: parted})


def three_parts_credits(decoder, trace, layer, row):
    """Mean over the six orders in which three parts can be added, one by one."""
    start, end = trace.states[layer - 1, row], trace.states[layer, row]
    given = trace.inside[layer].between[:, row]
    steps = [*given, end - start - given.sum(0)]
    found = np.zeros(3)
    for order in itertools.permutations(range(3)):
        at = start
        for part in order:
            before, at = level(decoder, at, 7), at + steps[part]
            found[part] += float(level(decoder, at, 7) - before) / 6
    return found


def test_three_parts_side_by_side_get_their_mean_over_all_six_orders(traced):
    decoder, plain = traced("neox")
    trace = three_beside(plain, 2)
    result = iglens.attribute(trace, iglens.Target((7,), "x"), by="sublayer")
    assert [segment.part for segment in result.segments[1:4]] == ["a", "b", "c"]
    for row in range(3):
        expected = three_parts_credits(decoder, trace, 2, row)
        np.testing.assert_allclose(result.credits[row, 1:4], expected, atol=1e-12)
    assert (result.rank[:, 2:4] == 0).all()
    assert (result.rank[:, [0, 1, 4, 5]] > 0).all()


@pytest.mark.parametrize("part", ["a", "b", "c"])
def test_what_is_inside_one_of_three_parts_adds_up_to_it(traced, part):
    _, plain = traced("neox")
    trace = three_beside(plain, 2)
    width = trace.states.shape[2]
    axes = iglens.Directions(torch.eye(width), torch.zeros(3, width))
    result = iglens.attribute(
        trace, iglens.Target((7,), "x"), by="sublayer", directions={(2, part): axes}
    )
    inside, at = result.components, "abc".index(part) + 1
    assert inside.certified
    error = inside.credits[:, inside.kinds.index("error")]
    np.testing.assert_allclose(error, result.credits[:, at], atol=1e-12)
    assert np.nanmax(np.abs(inside.closed)) < 1e-8


def test_the_interaction_of_three_parts(traced):
    """What all change together, less what each changes alone."""
    decoder, plain = traced("neox")
    trace = three_beside(plain, 2)
    found = interaction(trace, iglens.Target((7,), "x"))
    for row in range(3):
        start, end = trace.states[1, row], trace.states[2, row]
        given = trace.inside[2].between[:, row]
        steps = [*given, end - start - given.sum(0)]
        base = float(level(decoder, start, 7))
        alone = [float(level(decoder, start + step, 7)) - base for step in steps]
        np.testing.assert_allclose(found.alone[row], alone, atol=1e-12)
        whole = float(level(decoder, end, 7)) - base
        assert found.interaction[row] == pytest.approx([whole - sum(alone)], abs=1e-12)
    assert found.credits.shape == (3, 3)


@pytest.mark.parametrize("family", ["llama", "neox"])
def test_through_a_lens_only_the_first_part_has_a_translators_share(traced, family):
    decoder, trace = traced(family)
    width, n_layers = trace.states.shape[2], decoder.n_layers
    torch.manual_seed(0)
    weight = torch.randn(n_layers, width, width, dtype=torch.float64) / 10
    bias = torch.randn(n_layers, width, dtype=torch.float64) / 10
    lens = AffineLens("random", n_layers, tuple(range(n_layers)), weight, bias)
    target = iglens.Target((7,), "x")
    parts = iglens.attribute(trace, target, by="sublayer", lens=lens)
    layers = iglens.attribute(trace, target, lens=lens)
    merged = parts.by_layer
    np.testing.assert_allclose(merged.credits, layers.credits, atol=1e-12)
    np.testing.assert_allclose(merged.writes, layers.writes, atol=1e-12)
    np.testing.assert_allclose(parts.translations[:, 1::2], 0, atol=1e-12)
    assert np.abs(parts.translations[:, 0::2]).min() > 1e-9


def test_depths_are_those_of_layers(traced):
    _, trace = traced("llama")
    target = iglens.Target((7,), "x")
    parts = iglens.attribute(trace, target, by="sublayer")
    layers = iglens.attribute(trace, target)
    for one, other in zip(parts.depths, layers.depths, strict=True):
        assert one.onset_mass == other.onset_mass
        assert one.commit == other.commit
        assert one.churn == pytest.approx(other.churn)


def test_what_cannot_be_taken_apart_is_said_and_stays_whole(traced):
    decoder, _ = traced("llama")
    trace = decoder.trace(IDS, [6])
    with pytest.raises(ArgumentError, match=r"by=.sublayer"):
        iglens.attribute(trace, iglens.Target((7,), "x"), by="sublayer")
    with pytest.raises(ArgumentError, match="known are layer, sublayer, head"):
        check_level("word")
    _, parallel = traced("neox")
    target = iglens.Target((7,), "x")
    with pytest.raises(ArgumentError, match="stand side by side"):
        iglens.attribute(
            parallel, target, by="sublayer", estimator=iglens.Gradient(n_steps=2)
        )


def test_merged_layers_stay_merged(traced):
    decoder, trace = traced("llama")
    target = iglens.Target((7,), "x")
    last = decoder.n_layers
    merged = iglens.attribute(trace, target, by="sublayer", layers=[last])
    assert [segment.part for segment in merged.segments] == ["blocks"]


def test_the_gradient_estimator_goes_through_sequential_parts(traced):
    _, trace = traced("llama")
    target = iglens.Target((7,), "x")
    exact = iglens.attribute(trace, target, by="sublayer")
    close = iglens.attribute(
        trace, target, by="sublayer", estimator=iglens.Gradient(256, "gauss-legendre")
    )
    np.testing.assert_allclose(close.credits, exact.credits, atol=1e-7)


def test_a_block_without_parts_is_one_segment_and_the_trace_says_why():
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 20}
    decoder = iglens.Decoder(MambaForCausalLM(MambaConfig(**sizes, state_size=4)))
    trace = decoder.trace(IDS, [6], by="sublayer")
    assert set(trace.whole) == set(range(1, decoder.n_layers + 1))
    result = iglens.attribute(trace, iglens.Target((7,), "x"), by="sublayer")
    assert [segment.part for segment in result.segments] == ["block", "block"]
    assert "Layers 1 to 2 stay whole: there is nothing to split" in result.warnings[-1]


@pytest.mark.parametrize("family", ["llama", "gemma3", "neox"])
def test_the_interaction_is_what_parts_change_only_together(traced, family):
    decoder, trace = traced(family)
    target = iglens.Target((7,), "x")
    found = interaction(trace, target)
    for layer, parted in trace.inside.items():
        start, end = trace.states[layer - 1], trace.states[layer]
        one = parted.between[0] - (start if parted.kind == "sequential" else 0)
        for row in range(3):
            h, a = start[row], one[row]
            m = end[row] - h - a
            f = [float(level(decoder, s, 7)) for s in (h, h + a, h + m, end[row])]
            expected = f[3] - f[1] - f[2] + f[0]
            assert found.interaction[row, layer - 1] == pytest.approx(
                expected, abs=1e-12
            )
            at = 2 * (layer - 1)
            assert found.alone[row, at] == pytest.approx(f[1] - f[0], abs=1e-12)
            assert found.alone[row, at + 1] == pytest.approx(f[2] - f[0], abs=1e-12)
    assert found.layers == tuple(trace.inside)
    assert f"layer {found.layers[-1]}: " in str(found)


@pytest.mark.parametrize("family", ["llama", "neox"])
def test_what_a_lens_moves_is_no_interaction(traced, family):
    """Every state of a block is read through the map of that block's layer."""
    decoder, trace = traced(family)
    width, n = trace.states.shape[2], decoder.n_layers
    torch.manual_seed(0)
    weight = torch.randn(n, width, width, dtype=torch.float64) / 10
    bias = torch.randn(n, width, dtype=torch.float64) / 10
    lens = AffineLens("random", n, tuple(range(n)), weight, bias)
    found = interaction(trace, iglens.Target((7,), "x"), lens=lens)
    for layer, parted in trace.inside.items():
        start, end = trace.states[layer - 1], trace.states[layer]
        one = parted.between[0] - (start if parted.kind == "sequential" else 0)
        for row in range(3):
            h, a = start[row], one[row]
            states = torch.stack([h, h + a, end[row] - a, end[row]])[None]
            through = lens.translate(states, (layer,))[0]
            f = [float(level(decoder, state, 7)) for state in through]
            expected = f[3] - f[1] - f[2] + f[0]
            assert found.interaction[row, layer - 1] == pytest.approx(
                expected, abs=1e-12
            )


def test_parts_that_do_nothing_together_have_no_interaction():
    """Without the second part there is nothing to interact with."""
    model = families.build("llama").double()
    with torch.no_grad():
        for block in model.model.layers:
            block.mlp.down_proj.weight.zero_()
    trace = iglens.Decoder(model).trace(IDS, [6], by="sublayer")
    found = interaction(trace, iglens.Target((7,), "x"))
    np.testing.assert_allclose(found.interaction, 0, atol=1e-15)
    np.testing.assert_allclose(found.alone[:, 1::2], 0, atol=1e-15)
