import copy
import sys
import threading

import numpy as np
import pytest
import torch
from families import (
    FAMILIES,
    build,
    fingerprint,
    full_logits,
    left_as_it_was,
    logits_of_replaced,
    part,
    some_ids,
    states_by_hooks,
    total_variation,
)

from iglens import Decoder, Sampling, explain
from iglens.model.calls import recorded_calls
from iglens.model.injected import Injected, short_circuited

IDS = some_ids()
EVERY = {"positions": "all", "max_new_tokens": 0}


def injected(decoder):
    return decoder.verified.injected


@pytest.fixture
def model():
    return build("llama")


def test_any_number_of_vectors_gives_the_logits_of_a_full_forward(model):
    decoder = Decoder(model)
    vectors = torch.randn(9, 32, generator=torch.Generator().manual_seed(2))
    own = logits_of_replaced(model, "llama", IDS, vectors)
    for rows in (slice(0, 1), slice(2, 5), slice(None)):
        read = injected(decoder).logits(vectors[rows])
        assert total_variation(read, own[rows]) < 1e-6
    assert not total_variation(injected(decoder).logits(vectors + 0.1), own) < 1e-3


def test_vectors_may_come_in_another_dtype(model):
    reader = injected(Decoder(model))
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(2))
    read = reader.logits(vectors.double())
    assert read.dtype == torch.float32
    assert torch.equal(read, reader.logits(vectors))


def test_a_fingerprint_notices_every_kind_of_change(model):
    changes = [
        lambda m: m.lm_head.weight.data.mul_(2),
        lambda m: m.model.norm.register_forward_hook(print),
        lambda m: m.model.layers[0].register_forward_pre_hook(print),
        lambda m: setattr(m.lm_head, "forward", m.lm_head.forward),
        lambda m: m.model.layers[1].train(),
        lambda m: setattr(m.config, "use_cache", False),
        lambda m: setattr(m.config, "_experts_implementation", "batched_mm"),
        lambda m: setattr(m.generation_config, "repetition_penalty", 2.0),
        lambda m: setattr(m.model, "left_over", 1),
        lambda m: m.requires_grad_(False),
    ]
    assert fingerprint(model) == fingerprint(model)
    for index, change in enumerate(changes):
        other = copy.deepcopy(model)
        before = fingerprint(other)
        change(other)
        assert fingerprint(other) != before, index


class Stop(Exception):  # noqa: N818 - no error, it is wanted
    pass


STOPS = [Stop, KeyboardInterrupt]


def interrupted(module, calls, stop, work):
    """Whether work was stopped at that call of a module."""
    seen = []

    def hook(module, args):
        seen.append(1)
        if len(seen) == calls:
            raise stop

    handle = module.register_forward_pre_hook(hook)
    try:
        work()
    except stop:
        return True
    else:
        return False
    finally:
        handle.remove()


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("where", ["model.layers.1", "model.norm", "lm_head"])
def test_an_exception_at_any_moment_of_loading_leaves_the_model_alone(
    model, where, stop
):
    model.train()
    model.model.layers[2].eval()
    module = part(model, where)
    for calls in range(1, 90, 3):
        with left_as_it_was(model):
            if not interrupted(module, calls, stop, lambda: Decoder(model)):
                break
    assert 5 < calls < 88


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("where", ["model.layers.1", "model.norm"])
def test_an_exception_while_explaining_leaves_the_model_alone(model, where, stop):
    decoder = Decoder(model)

    def work():
        explain(decoder, IDS, max_new_tokens=2)
        injected(decoder).logits(torch.ones(1, 32))

    for calls in range(1, 90, 3):
        with left_as_it_was(model):
            if not interrupted(part(model, where), calls, stop, work):
                break
    assert 2 < calls < 88
    assert explain(decoder, IDS, max_new_tokens=2).fidelity.max() < 1e-5


def test_an_exception_inside_the_short_circuit_puts_the_blocks_back(model):
    stream = Decoder(model).verified.stream
    before = full_logits(model, IDS)

    def stopped_inside():
        with short_circuited(model, stream, torch.ones(1, 32)):
            assert "forward" in model.model.layers[0].__dict__
            raise KeyboardInterrupt

    with left_as_it_was(model), pytest.raises(KeyboardInterrupt):
        stopped_inside()
    assert torch.equal(full_logits(model, IDS), before)


def test_a_forward_that_others_have_patched_is_put_back(model):
    block = model.model.layers[1]
    original = block.forward

    def patched(*args, **kwargs):
        return original(*args, **kwargs) * 1.5

    block.forward = patched
    with left_as_it_was(model):
        decoder = Decoder(model)
        result = explain(decoder, IDS, **EVERY)
    assert block.__dict__["forward"] is patched
    own = full_logits(model, IDS).double().softmax(-1)
    expected = own[range(len(IDS) - 1), IDS[1:]].numpy()
    np.testing.assert_allclose(result.final, expected, atol=1e-6)


@pytest.mark.parametrize("late", [False, True], ids=["before", "after loading"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "neox"])
@pytest.mark.parametrize("layer", [0, 2])
def test_a_steering_hook_acts_once_in_the_trace_and_not_again(name, layer, late):
    model = build(name)
    push = torch.linspace(-3, 3, 32)

    def steer(module, args, output):
        if isinstance(output, tuple):
            return (output[0] + push, *output[1:])
        return output + push

    block = part(model, FAMILIES[name].blocks)[layer]
    unsteered = full_logits(model, IDS)
    decoder = Decoder(model) if late else None
    block.register_forward_hook(steer)
    decoder = decoder or Decoder(model)
    with left_as_it_was(model):
        trace = decoder.trace(IDS, range(1, len(IDS)))
        result = explain(decoder, IDS, **EVERY)
    own = full_logits(model, IDS)
    assert total_variation(own, unsteered) > 0.1
    assert torch.equal(trace.logits, own[:-1])
    assert torch.equal(trace.states, states_by_hooks(model, name, IDS)[:, :-1])
    expected = own.double().softmax(-1)[range(len(IDS) - 1), IDS[1:]].numpy()
    np.testing.assert_allclose(result.final, expected, atol=1e-6)
    assert result.fidelity.max() < 1e-5


def test_a_steering_hook_on_the_last_block_is_not_applied_to_what_is_read(model):
    plain = injected(Decoder(model)).logits(torch.ones(1, 32))
    model.model.layers[-1].register_forward_hook(lambda m, a, out: out + 5.0)
    model.model.layers[-1].register_forward_pre_hook(lambda m, a: (a[0] * 2, *a[1:]))
    assert torch.equal(injected(Decoder(model)).logits(torch.ones(1, 32)), plain)


def test_compiled_models_and_blocks_are_read_as_they_run():
    for compiled in (compile_whole, compile_in_place, compile_last_block):
        model = compiled(build("llama"))
        with left_as_it_was(model):
            result = explain(Decoder(model), IDS, **EVERY)
        own = full_logits(build("llama"), IDS).double().softmax(-1)
        expected = own[range(len(IDS) - 1), IDS[1:]].numpy()
        np.testing.assert_allclose(result.final, expected, atol=1e-6)


def compile_whole(model):
    return torch.compile(model, backend="eager")


def compile_in_place(model):
    model.compile(backend="eager")
    return model


def compile_last_block(model):
    model.model.layers[-1].compile(backend="eager")
    return model


def in_threads(work, count=2):
    """What `work(0)`, `work(1)`, … give when they run at the same time."""
    start, results, errors = threading.Barrier(count), {}, []

    def run(index):
        start.wait()
        try:
            results[index] = work(index)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert errors == []
    return [results[index] for index in range(count)]


def called_head(module, args):
    return (args[0] * 1.5,)


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 3},
        {"max_new_tokens": 3, "sampling": Sampling(seed=5)},
        {"estimator": "gradient", "n_steps": 3, "max_new_tokens": 1},
    ],
    ids=["greedy", "sampled", "gradient"],
)
@pytest.mark.parametrize("kind", ["explicit", "injected"])
def test_two_threads_with_one_model_get_what_each_gets_alone(model, kind, options):
    if kind == "injected":
        model.lm_head.register_forward_pre_hook(called_head)
    decoder = Decoder(model)
    assert decoder.readout.kind == kind
    if kind == "injected" and "estimator" in options:
        options = {"max_new_tokens": 1}

    def work(index):
        prompts = [some_ids(6, seed=10 * index + i) for i in range(3)]
        return [explain(decoder, prompt, **options) for prompt in prompts]

    with left_as_it_was(model):
        together = in_threads(work)
    for results, index in zip(together, range(2), strict=True):
        for result, alone in zip(results, work(index), strict=True):
            assert result.token_ids.tolist() == alone.token_ids.tolist()
            np.testing.assert_allclose(result.levels, alone.levels, atol=1e-6)
            np.testing.assert_allclose(result.credits, alone.credits, atol=1e-6)


def test_a_decoder_may_be_made_while_another_of_the_same_model_is_used(model):
    def work(index):
        decoder = Decoder(model)
        return explain(decoder, some_ids(6, seed=index), max_new_tokens=2)

    with left_as_it_was(model):
        together = in_threads(work, count=3)
    for index, result in enumerate(together):
        np.testing.assert_allclose(result.levels, work(index).levels, atol=1e-6)


def test_calls_of_another_thread_are_not_recorded(model):
    norm, hidden = model.model.norm, torch.ones(1, 1, 32)
    with recorded_calls([("norm", norm)]) as calls:
        other = threading.Thread(target=norm, args=(hidden,))
        other.start()
        other.join()
        assert calls == []
        norm(hidden)
    assert [call.name for call in calls] == ["norm"]


def test_the_vector_that_is_read_is_not_overwritten_by_the_model(model):
    """Some models add in place."""
    model.model.layers[-1].register_forward_hook(lambda m, a, out: out)
    decoder = Decoder(model)
    norm = model.model.norm
    original = norm.forward
    norm.forward = lambda hidden: original(hidden.mul_(2))
    vectors = torch.ones(2, 32)
    reader = Injected(decoder._runner, decoder.verified.stream)
    first = reader(vectors)
    assert torch.equal(vectors, torch.ones(2, 32))
    assert torch.equal(reader(vectors), first)
