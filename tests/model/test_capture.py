import weakref

import pytest
import torch
from families import (
    FAMILIES,
    Handmade,
    build,
    full_logits,
    left_as_it_was,
    part,
    some_ids,
    states_by_hooks,
)

from iglens import ArgumentError, Decoder, UnsupportedModelError
from iglens.model.capture import capture

IDS = some_ids(40)


def take(decoder, places, layers=None):
    every = range(decoder.n_layers + 1) if layers is None else layers
    return capture(
        decoder._runner,
        decoder.verified.stream,
        torch.tensor([IDS]),
        torch.tensor(places),
        list(every),
    )


@pytest.fixture(scope="module")
def decoder():
    return Decoder(build("qwen3"))


@pytest.mark.parametrize("places", [[0], [39], [5, 6, 20], list(range(40))])
def test_only_the_wanted_places_are_kept_and_they_are_right(decoder, places):
    taken = take(decoder, places)
    expected = states_by_hooks(decoder.model, "qwen3", IDS)
    assert torch.equal(taken.states, expected[:, places])
    own = full_logits(decoder.model, IDS)
    torch.testing.assert_close(taken.logits, own[places], rtol=1e-5, atol=1e-5)
    for tensor in (taken.states, taken.logits, taken.means, taken.causal_mean):
        assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_only_the_wanted_layers_are_kept(decoder):
    taken = take(decoder, [3, 9], [0, 2, 3])
    expected = states_by_hooks(decoder.model, "qwen3", IDS)
    assert torch.equal(taken.states, expected[[0, 2, 3]][:, [3, 9]])
    assert taken.means.shape == (3, 32)


def test_states_alone_are_those_of_every_token_in_the_wanted_order(decoder):
    short = decoder.states([IDS[:9], IDS], layers=[2, 0, 3])
    expected = states_by_hooks(decoder.model, "qwen3", IDS)[[2, 0, 3]]
    assert [states.shape[1] for states in short] == [9, 40]
    torch.testing.assert_close(short[0], expected[:, :9], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(short[1], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(decoder.states([IDS])[0][[2, 0, 3]], expected)


def test_states_alone_cost_no_rows_of_logits(decoder):
    kept = []
    handle = decoder.model.lm_head.register_forward_pre_hook(
        lambda module, args: kept.append(args[0].shape[1])
    )
    try:
        decoder.states([IDS])
    finally:
        handle.remove()
    assert kept == [1]


def test_states_of_texts_that_may_not_share_a_batch_come_one_by_one(decoder):
    runs = []
    other = Decoder(build("qwen3"))
    other.__dict__["batch_safe"] = False
    handle = other.model.register_forward_pre_hook(
        lambda module, args, kwargs: runs.append(len(kwargs["input_ids"])),
        with_kwargs=True,
    )
    try:
        found = other.states([IDS[:9], IDS])
    finally:
        handle.remove()
    assert runs == [1, 1]
    assert [states.shape[1] for states in found] == [9, 40]


@pytest.mark.parametrize("layers", [[], [-1], [0, 4]])
def test_states_of_layers_that_are_none_are_refused(decoder, layers):
    with pytest.raises(ArgumentError, match="has 0 to 3"):
        decoder.states([IDS], layers=layers)


def test_means_are_those_of_the_whole_text_and_of_what_came_before(decoder):
    taken = take(decoder, [3, 9])
    states = states_by_hooks(decoder.model, "qwen3", IDS).double()
    torch.testing.assert_close(taken.means, states.mean(1).float())
    before = [states[0, : place + 1].mean(0) for place in (3, 9)]
    torch.testing.assert_close(taken.causal_mean, torch.stack(before).float())


def test_no_state_of_the_whole_text_outlives_its_block(decoder):
    """Otherwise a long text would cost layers x tokens x d_model."""
    alive, outputs = [], []

    def count(module, args, output):
        alive.append(sum(ref() is not None for ref in outputs))
        outputs.append(weakref.ref(output[0] if isinstance(output, tuple) else output))

    handles = [
        block.register_forward_hook(count) for block in decoder.model.model.layers
    ]
    try:
        taken = take(decoder, [5])
    finally:
        for handle in handles:
            handle.remove()
    assert max(alive) <= 1
    assert not any(ref() is not None for ref in outputs)
    sizes = [t.numel() for t in (taken.states, taken.logits, taken.means)]
    assert max(sizes) <= 4 * 97


@pytest.mark.parametrize("name", FAMILIES)
def test_the_head_only_sees_what_is_asked_for(name):
    model = build(name)
    decoder, seen = Decoder(model), []
    head = part(model, FAMILIES[name].head)
    handle = head.register_forward_hook(
        lambda module, args, output: seen.append(output.shape[1])
    )
    try:
        taken = take(decoder, [37, 39])
    finally:
        handle.remove()
    assert seen == [3]
    own = full_logits(model, IDS)[[37, 39]]
    torch.testing.assert_close(taken.logits, own, rtol=1e-5, atol=1e-5)


def test_models_without_logits_to_keep_give_the_same():
    model = Handmade(vocab=97)
    decoder = Decoder(model)
    taken = take(decoder, [37, 39])
    with torch.no_grad():
        expected = model(torch.tensor([IDS]))[0, [37, 39]]
    assert torch.equal(taken.logits, expected)


def test_a_block_that_is_gone_is_noticed_and_hooks_are_removed():
    model = build("llama")
    decoder = Decoder(model)
    model.model.layers = model.model.layers[:2]
    with (
        left_as_it_was(model),
        pytest.raises(UnsupportedModelError, match="blocks"),
    ):
        take(decoder, [3])


def test_one_forward_pass_is_all_it_takes(decoder):
    decoder.trace(IDS, [3, 9])  # the first time it tries whether the model can pick
    passes = []
    handle = decoder.model.model.register_forward_hook(lambda *_: passes.append(1))
    try:
        decoder.trace(IDS, [3, 9])
    finally:
        handle.remove()
    assert passes == [1]
