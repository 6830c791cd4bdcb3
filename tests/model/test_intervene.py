"""Runs with gates on blocks and parts, against hooks written by hand."""

from contextlib import contextmanager

import pytest
import torch
from families import FAMILIES, build, full_logits, left_as_it_was, part, some_ids

import iglens
from iglens.model.decoder import Decoder
from iglens.model.intervene import Intervention, check_at

EVERY = [name for name in FAMILIES if name != "llama of one layer"]

# module whose output is all that a part adds, by family
ADDS = {
    "llama": ("self_attn", "mlp"),
    "gemma2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "gpt2": ("attn", "mlp"),
    "phi": ("self_attn", "mlp"),
    "neox": ("attention", "mlp"),
    "cohere": ("self_attn", "mlp"),
    "qwen3 moe": ("self_attn", "mlp"),
}


def of(name, *, parts=False, **options):
    model = build(name, **options)
    return model, Intervention.of(Decoder(model), parts=parts)


def closed(n_columns, *columns):
    gates = torch.ones(1, n_columns)
    gates[0, list(columns)] = 0
    return gates


@contextmanager
def hooked(module, change):
    """While open, a module's output is `change(input, output)`, tuples apart."""

    def hook(module, args, kwargs, output):
        given = args[0] if args else next(iter(kwargs.values()))
        if isinstance(output, tuple):
            return (change(given, output[0]), *output[1:])
        return change(given, output)

    handle = module.register_forward_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("name", EVERY)
def test_a_skipped_block_hands_on_what_it_takes(name):
    model, gated = of(name)
    ids = some_ids(8)
    for layer in range(3):
        found = gated.logits(torch.tensor(ids), closed(3, layer))[0]
        with hooked(
            part(model, FAMILIES[name].blocks)[layer], lambda given, out: given.clone()
        ):
            expected = full_logits(model, ids)[-1]
        assert torch.allclose(found, expected, atol=1e-5)
        assert (found - full_logits(model, ids)[-1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "phi"])
def test_an_open_gate_changes_nothing_and_runs_in_a_batch_keep_apart(name):
    model, gated = of(name)
    ids = torch.tensor(some_ids(8))
    gates = torch.cat([torch.ones(1, 3), closed(3, 1), torch.full((1, 3), 0.4)])
    found = gated.logits(ids, gates)
    assert torch.allclose(found[0], full_logits(model, ids.tolist())[-1], atol=1e-5)
    for row in range(3):
        alone = gated.logits(ids, gates[[row]])[0]
        assert torch.allclose(found[row], alone, atol=1e-4)


@pytest.mark.parametrize("name", EVERY)
def test_the_lens_at_a_layer_is_the_model_with_later_blocks_skipped(name):
    model = build(name)
    decoder = Decoder(model)
    gated = Intervention.of(decoder)
    ids = some_ids(7)
    [states] = decoder.states([ids])
    read = decoder.readout.logits(states[:, -1])
    gates = (torch.arange(3)[None] < torch.arange(4)[:, None]).float()
    ran = gated.logits(torch.tensor(ids), gates)
    assert torch.allclose(ran.softmax(-1), read.softmax(-1), atol=1e-5)


@pytest.mark.parametrize("name", ADDS)
@pytest.mark.parametrize("which", [0, 1])
def test_a_skipped_part_adds_nothing(name, which):
    model, gated = of(name, parts=True)
    assert len(gated.columns) == 6
    ids = some_ids(8)
    for layer in range(3):
        column = next(
            at
            for at, c in enumerate(gated.columns)
            if c.layer == layer + 1 and c.part == ("attention", "mlp")[which]
        )
        found = gated.logits(torch.tensor(ids), closed(6, column))[0]
        block = part(model, FAMILIES[name].blocks)[layer]
        with hooked(
            block.get_submodule(ADDS[name][which]),
            lambda given, out: torch.zeros_like(out),
        ):
            expected = full_logits(model, ids)[-1]
        assert torch.allclose(found, expected, atol=1e-4)
        assert (found - full_logits(model, ids)[-1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["llama", "phi"])
def test_both_parts_skipped_is_the_block_skipped(name):
    _, parts = of(name, parts=True)
    _, whole = of(name)
    ids = torch.tensor(some_ids(8))
    one = parts.logits(ids, closed(6, 2, 3))
    assert torch.allclose(one, whole.logits(ids, closed(3, 1)), atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "neox"])
def test_a_block_skipped_at_the_last_token_is_left_alone_at_the_others(name):
    model, gated = of(name)
    ids = some_ids(8)

    def change(given, out):
        return torch.cat([out[:, :-1], given[:, -1:]], 1)

    found = gated.logits(torch.tensor(ids), closed(3, 0), at="last")[0]
    with hooked(part(model, FAMILIES[name].blocks)[0], change):
        expected = full_logits(model, ids)[-1]
    assert torch.allclose(found, expected, atol=1e-5)
    everywhere = gated.logits(torch.tensor(ids), closed(3, 0))[0]
    assert (found - everywhere).abs().max() > 1e-3


def test_a_mean_update_is_that_of_all_tokens_but_the_first():
    model, gated = of("llama")
    texts = [some_ids(6, seed=1), some_ids(9, seed=2)]
    updates = []

    def keep(given, out):
        updates.append((out - given)[0, 1:].double())
        return out

    with hooked(part(model, "model.layers")[1], keep):
        for ids in texts:
            full_logits(model, ids)
    expected = torch.cat(updates).mean(0)
    means = gated.mean_updates([torch.tensor(ids) for ids in texts])
    assert torch.allclose(means[1], expected, atol=1e-5)
    ids = some_ids(8)
    with hooked(
        part(model, "model.layers")[1], lambda given, out: given + expected.float()
    ):
        ablated = full_logits(model, ids)[-1]
    found = gated.logits(torch.tensor(ids), closed(3, 1), means=means)[0]
    assert torch.allclose(found, ablated, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "parts"), [("gpt2", False), ("gpt2", True), ("phi", True)]
)
def test_logits_can_be_differentiated_by_the_gates(name, parts):
    _, gated = of(name, parts=parts, dtype=torch.float64)
    ids, n = torch.tensor(some_ids(6)), len(gated.columns)
    gates = torch.full((1, n), 0.6, dtype=torch.float64, requires_grad=True)
    logits = gated.logits(ids, gates, gradients=True)
    (slopes,) = torch.autograd.grad(logits[0, 5], gates)
    for column in range(n):
        step = torch.zeros(1, n, dtype=torch.float64)
        step[0, column] = 1e-5
        ahead, behind = (
            gated.logits(ids, gates.detach() + sign * step)[0, 5] for sign in (1, -1)
        )
        assert float(slopes[0, column]) == pytest.approx(
            float(ahead - behind) / 2e-5, rel=1e-4, abs=1e-6
        )


def test_nothing_stays_behind_also_after_an_exception():
    model = build("llama")
    decoder = Decoder(model)
    gated = Intervention.of(decoder, parts=True)
    ids = torch.tensor(some_ids(6))
    with left_as_it_was(model):
        gated.logits(ids, closed(6, 1))
        gated.mean_updates([ids])

        def failing(*args, **kwargs):
            raise KeyboardInterrupt

        mlp = part(model, "model.layers.1.mlp")
        mlp.forward = failing
        with pytest.raises(KeyboardInterrupt):
            gated.logits(ids, closed(6, 1))
        del mlp.forward


def test_gates_for_other_columns_are_refused():
    _, gated = of("llama")
    ids = torch.tensor(some_ids(6))
    with pytest.raises(iglens.ArgumentError, match=r"4 columns; .* has 3"):
        gated.logits(ids, torch.ones(1, 4))
    with pytest.raises(iglens.ArgumentError, match="known are all, last"):
        check_at("first")


@pytest.mark.parametrize("name", EVERY)
def test_states_between_parts_can_be_replaced(name):
    model, gated = of(name, parts=True)
    with left_as_it_was(model):
        gated.check_parts(torch.tensor(some_ids(6)), 97)


def test_a_replaced_state_that_something_passes_by_is_noticed(monkeypatch):
    _, gated = of("llama", parts=True)
    monkeypatch.setattr(torch.Tensor, "copy_", lambda tensor, other: tensor)
    with pytest.raises(iglens.UnsupportedModelError, match=r"block 1 of .* one by one"):
        gated.check_parts(torch.tensor(some_ids(6)), 97)
