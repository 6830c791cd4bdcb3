import functools

import pytest
import torch
from families import FAMILIES, build, left_as_it_was, part, some_ids

from iglens import Decoder, UnsupportedModelError
from iglens.model.capture import capture_batch
from iglens.model.inside.between import capture_parts

IDS = some_ids(20)


@functools.cache
def decoder_of(family):
    return Decoder(build(family))


def take(decoder, texts, places, layers=None):
    every = range(decoder.n_layers + 1) if layers is None else layers
    return capture_parts(
        decoder._runner,
        decoder.verified.stream,
        decoder.sublayers,
        [torch.tensor(ids) for ids in texts],
        [torch.tensor(chosen) for chosen in places],
        list(every),
    )


@torch.no_grad()
def inputs_of(model, ids, names):
    """First argument of some modules, by plain hooks."""
    found, handles = {}, []
    for name in names:
        handles.append(
            part(model, name).register_forward_pre_hook(
                lambda module, args, name=name: found.update({name: args[0][0].clone()})
            )
        )
    try:
        model(torch.tensor([ids]), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return found


def test_the_states_between_parts_come_with_the_others():
    decoder = decoder_of("llama")
    (taken,) = take(decoder, [IDS], [[3, 9, 19]])
    names = [f"model.layers.{i}.post_attention_layernorm" for i in range(3)]
    expected = inputs_of(decoder.model, IDS, names)
    assert sorted(taken.between) == [1, 2, 3]
    for layer, name in enumerate(names, 1):
        assert torch.equal(taken.between[layer][0], expected[name][[3, 9, 19]])
    (plain,) = capture_batch(
        decoder._runner,
        decoder.verified.stream,
        [torch.tensor(IDS)],
        [torch.tensor([3, 9, 19])],
        range(4),
    )
    assert torch.equal(taken.captured.states, plain.states)
    assert torch.equal(taken.captured.logits, plain.logits)


def test_updates_telescope_to_what_the_model_added():
    decoder = decoder_of("granite")
    (taken,) = take(decoder, [IDS], [range(20)])
    states = taken.captured.states.double()
    for layer, inner in taken.between.items():
        points = torch.cat([states[[layer - 1]], inner.double(), states[[layer]]])
        total = points.diff(dim=0).sum(0)
        torch.testing.assert_close(total, states[layer] - states[layer - 1])


@pytest.mark.parametrize("family", ["phi", "neox", "cohere"])
@torch.no_grad()
def test_parallel_vectors_leave_a_remainder_that_is_the_last_part(family):
    decoder = decoder_of(family)
    (taken,) = take(decoder, [IDS], [range(20)])
    outputs = {}
    for plan in decoder.sublayers.blocks:
        name = plan.parts[1].module
        part(decoder.model, name).register_forward_hook(
            lambda module, args, output, name=name: outputs.update({name: output[0]})
        )
    decoder.model(torch.tensor([IDS]), use_cache=False)
    for plan in decoder.sublayers.blocks:
        part(decoder.model, plan.parts[1].module)._forward_hooks.clear()
        before, after = taken.captured.states[[plan.layer - 1, plan.layer]]
        rest = after - before - taken.between[plan.layer].sum(0)
        expected = outputs[plan.parts[1].module]
        torch.testing.assert_close(rest, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_several_texts_at_once_are_taken_as_one_by_one(family):
    decoder = decoder_of(family)
    texts, places = [IDS[:7], IDS], [[2, 6], [0, 11, 19]]
    together = take(decoder, texts, places)
    for ids, chosen, found in zip(texts, places, together, strict=True):
        (alone,) = take(decoder, [ids], [chosen])
        assert found.between.keys() == alone.between.keys()
        for layer, expected in alone.between.items():
            assert found.between[layer].shape == (1, len(chosen), 32)
            torch.testing.assert_close(
                found.between[layer], expected, rtol=1e-3, atol=1e-4
            )


def test_inside_is_looked_only_where_both_ends_are_wanted():
    decoder = decoder_of("llama")
    (taken,) = take(decoder, [IDS], [[4]], [0, 2, 3])
    assert list(taken.between) == [3]


def test_only_the_wanted_places_are_kept():
    (taken,) = take(decoder_of("llama"), [IDS], [[4, 5]])
    for inner in taken.between.values():
        assert inner.untyped_storage().nbytes() == inner.nbytes == 2 * 32 * 4


def test_a_module_that_is_no_longer_called_is_noticed():
    model = build("gemma3")
    decoder = Decoder(model)
    assert decoder.sublayers.kinds == {"sequential": 3}
    block = model.model.layers[1]
    norm = block.pre_feedforward_layernorm
    block.forward = functools.partial(_without_calling, block, norm)
    with (
        left_as_it_was(model),
        pytest.raises(UnsupportedModelError, match=r"layers\.1\.pre_feedforward"),
    ):
        take(decoder, [IDS], [[4]])


def _without_calling(block, norm, *args, **kwargs):
    """The block's own forward, with one module's forward called past its hooks."""
    call = type(norm).__call__
    try:
        type(norm).__call__ = type(norm).forward
        return type(block).forward(block, *args, **kwargs)
    finally:
        type(norm).__call__ = call


def test_one_forward_pass_is_all_it_takes_and_no_hook_stays():
    decoder = decoder_of("phi")
    decoder.sublayers  # noqa: B018
    passes = []
    with left_as_it_was(decoder.model):
        handle = decoder.model.model.register_forward_hook(lambda *_: passes.append(1))
        take(decoder, [IDS, IDS[:5]], [[4], [3]])
        handle.remove()
    assert passes == [1]
