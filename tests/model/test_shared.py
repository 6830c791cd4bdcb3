"""Texts that begin alike: what they share is run once, where that is the same."""

import pytest
import torch
from families import FAMILIES, build, part, some_ids, states_by_hooks

from iglens import Decoder
from iglens.model import tracer
from iglens.model.shared import shared_length

SHARED, TEXTS = 14, 6
BEGINNING = some_ids(SHARED, seed=1)
RAGGED = [BEGINNING + some_ids(2 + i % 3, seed=10 + i) for i in range(TEXTS)]
LAST = [[len(text)] for text in RAGGED]


@pytest.fixture
def answers(monkeypatch):
    """What sharing gave, pass by pass: None where texts were run whole."""
    found, real = [], tracer.capture_alike

    def watched(*args):
        found.append(real(*args))
        return found[-1]

    monkeypatch.setattr(tracer, "capture_alike", watched)
    return found


def tokens_run(decoder, call):
    """How many tokens the blocks were given."""
    counted = []
    block = decoder.verified.stream.blocks[0]
    with block.register_forward_pre_hook(
        lambda _, args, kwargs: counted.append(
            next(t for t in (*args, *kwargs.values()) if torch.is_tensor(t))
            .shape[:2]
            .numel()
        ),
        with_kwargs=True,
    ):
        call()
    return sum(counted)


def assert_those_of_whole_texts(decoder, traces, name):
    for trace, ids, wanted in zip(traces, RAGGED, LAST, strict=True):
        alone = decoder.trace(ids, wanted)
        expected = states_by_hooks(decoder.model, name, ids)[:, len(ids) - 1 :]
        for found, own in (
            (trace.states, expected),
            (trace.states, alone.states),
            (trace.logits, alone.logits),
            (trace.text_mean, alone.text_mean),
            (trace.causal_mean, alone.causal_mean),
        ):
            torch.testing.assert_close(found, own, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_family_gives_what_whole_texts_give(name, answers):
    decoder = Decoder(build(name))
    traces = decoder.trace_many(RAGGED, LAST)
    assert answers[0] is not None
    assert_those_of_whole_texts(decoder, traces, name)


def test_the_beginning_is_run_once():
    decoder = Decoder(build("llama"))
    assert decoder.batch_safe
    longest = max(map(len, RAGGED))
    run = tokens_run(decoder, lambda: decoder.trace_many(RAGGED, LAST))
    assert run == SHARED + TEXTS * (longest - SHARED) + longest
    assert run < 0.6 * TEXTS * longest


@pytest.mark.parametrize("layers", [None, [1], [2]])
def test_wanted_layers_and_several_places(layers, answers):
    decoder = Decoder(build("gpt2"))
    wanted = [[len(ids) - 1, len(ids)] for ids in RAGGED]
    traces = decoder.trace_many(RAGGED, wanted, layers=layers)
    assert answers[0] is not None
    for trace, ids, positions in zip(traces, RAGGED, wanted, strict=True):
        alone = decoder.trace(ids, positions, layers=layers)
        assert trace.layers == alone.layers
        torch.testing.assert_close(trace.states, alone.states, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["gemma3", "mistral"])
def test_a_window_that_moved_on_is_no_trap(name, answers):
    decoder = Decoder(build(name, sliding_window=5))
    traces = decoder.trace_many(RAGGED, LAST)
    assert len(answers) == 1
    assert_those_of_whole_texts(decoder, traces, name)


def test_a_cache_that_forgets_is_found_out(monkeypatch, answers):
    decoder = Decoder(build("llama"))
    assert decoder.batch_safe
    real = type(decoder._runner).cache

    def forgetful(self, ids):
        cache = real(self, ids)
        cache.layers[1].values[:, :, 3] = 0.0
        return cache

    monkeypatch.setattr(type(decoder._runner), "cache", forgetful)
    traces = decoder.trace_many(RAGGED, LAST)
    assert answers == [None]
    assert_those_of_whole_texts(decoder, traces, "llama")


@pytest.mark.parametrize("fault", [RuntimeError, TypeError, ValueError, KeyError])
def test_a_cache_that_fails_costs_nothing_but_time(monkeypatch, fault, answers):
    decoder = Decoder(build("llama"))
    assert decoder.batch_safe

    def failing(*_):
        raise fault("a cache of another kind")

    monkeypatch.setattr(type(decoder._runner), "cache", failing)
    traces = decoder.trace_many(RAGGED, LAST)
    assert answers == [None]
    assert_those_of_whole_texts(decoder, traces, "llama")
    assert not any(
        part(decoder.model, "model.layers")[i]._forward_hooks for i in range(3)
    )


def test_a_cache_beyond_what_whole_texts_take_is_not_repeated(monkeypatch, answers):
    monkeypatch.setattr("iglens.model.shared.WIDTHS", 0.01)
    decoder = Decoder(build("llama"))
    traces = decoder.trace_many(RAGGED, LAST)
    assert answers == [None]
    assert_those_of_whole_texts(decoder, traces, "llama")


def test_credits_below_the_layer_are_of_whole_texts(answers):
    decoder = Decoder(build("llama"))
    together = decoder.trace_many(RAGGED, LAST, by="sublayer")
    assert answers == []
    assert len(together) == TEXTS


def lengths(*sizes):
    return [torch.arange(size) for size in sizes]


def places(*wanted):
    return [torch.tensor(own) for own in wanted]


@pytest.mark.parametrize(
    ("texts", "wanted", "length"),
    [
        ([torch.tensor([1, 2, 3, 4])], places([3]), 0),  # one text shares nothing
        (lengths(30, 30, 30), places([29], [29], [29]), 29),
        (lengths(30, 30, 30), places([5, 29], [29], [29]), 0),  # too little is left
        (lengths(30, 30, 30, 30, 30), places(*[[20, 29]] * 5), 20),
        (lengths(30, 28, 30, 30), places([29], [27], [29], [29]), 27),
        (lengths(30, 30), places([29], [29]), 0),  # a third run is as long as both
        ([torch.arange(30), torch.arange(1, 31)] * 4, places(*[[29]] * 8), 0),
    ],
)
def test_what_is_shared(texts, wanted, length):
    assert shared_length(texts, wanted) == length
