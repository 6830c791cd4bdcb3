"""The gate path: constructions with known answers, and its own certificate."""

import itertools

import numpy as np
import pytest
import torch
from families import build, full_logits, some_ids
from torch import nn

from iglens.auditing import audit
from iglens.gating import AbstractGated, gate_path
from iglens.model.decoder import Decoder


class Copy(nn.Module):
    """A block that adds one coordinate to another, some number of times."""

    def __init__(self, source, goal, times, d_model):
        super().__init__()
        self.linear = nn.Linear(d_model, d_model, bias=False)
        weight = torch.zeros(d_model, d_model)
        weight[goal, source] = times
        self.linear.weight.data = weight

    def forward(self, hidden):
        return hidden + self.linear(hidden)


class MoveThenRead(nn.Module):
    """What the head reads is the product of three blocks' gates; one does nothing."""

    def __init__(self, d_model=12, vocab=20):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embed = nn.Embedding(vocab, d_model)
        self.body = nn.Sequential(
            Copy(0, 1, 1.0, d_model),
            Copy(1, 2, 1.5, d_model),
            Copy(0, 0, 0.0, d_model),
            Copy(2, 3, 2.0, d_model),
        )
        self.head = nn.Linear(d_model, vocab, bias=False)
        rows = torch.randn(vocab, d_model, generator=generator)
        rows[:, 0], rows[:, 1:4] = 1.0, 0.0
        self.embed.weight.data = rows
        head = torch.randn(vocab, d_model, generator=generator)
        head[:, :3] = 0.0
        self.head.weight.data = head

    def forward(self, input_ids):
        return self.head(self.body(self.embed(input_ids)))


def test_moving_is_credited_by_gates_and_reading_by_the_readout():
    found = audit(Decoder(MoveThenRead()), [[3, 1, 4]], target=6, gates=True)
    change = float(found.results[0].final[0] - found.results[0].baseline[0])
    assert abs(change) > 0.01
    third = change / 3
    assert found.credits[0] == pytest.approx([0, 0, 0, change], abs=1e-6)
    assert found.gates.effects[0] == pytest.approx([third, third, 0, third], abs=1e-5)
    assert found.ledger[0] == pytest.approx([third, third, 0, -2 * third], abs=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2", "phi", "gemma2"])
@pytest.mark.parametrize("by", ["layer", "sublayer"])
def test_gates_add_up_to_what_credits_add_up_to(name, by):
    prompts = [some_ids(5), some_ids(6, seed=1)]
    found = audit(Decoder(build(name)), prompts, by=by, gates=True)
    assert np.abs(found.ledger.sum(1)).max() < 1e-5
    totals = found.gates.intact - found.gates.removed
    assert np.allclose(found.gates.effects.sum(1), totals, atol=1e-12)
    assert np.abs(found.gates.closed).max() < 1e-4
    assert np.abs(found.gates.apart).max() < 1e-4
    assert np.abs(found.ledger).max() > 1e-3


def test_gates_are_the_integral_of_finite_differences():
    model = build("gpt2", dtype=torch.float64)
    ids, token = some_ids(5), 7
    found = audit(Decoder(model), [ids], target=token, gates=True, tolerance=1e-9)

    def level(gates):
        """The target's probability, blocks gated by hooks of our own."""

        def hook_of(gate):
            def hook(module, args, output):
                if isinstance(output, tuple):
                    return ((1 - gate) * args[0] + gate * output[0], *output[1:])
                return (1 - gate) * args[0] + gate * output

            return hook

        handles = [
            block.register_forward_hook(hook_of(gate))
            for block, gate in zip(model.transformer.h, gates, strict=True)
        ]
        try:
            return float(full_logits(model, ids)[-1].softmax(-1)[token])
        finally:
            for handle in handles:
                handle.remove()

    places, weights = np.polynomial.legendre.leggauss(12)
    expected = np.zeros(3)
    edges = [0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 1]  # steep at first
    for left, right in itertools.pairwise(edges):
        for place, weight in zip(places, weights, strict=True):
            t = left + (right - left) * (place + 1) / 2
            for layer in range(3):
                step = 1e-5 * np.eye(3)[layer]
                slope = (level(t + step) - level(t - step)) / 2e-5
                expected[layer] += weight * (right - left) / 2 * slope
    assert found.gates.effects[0] == pytest.approx(expected, abs=1e-6)


class Spike(AbstractGated):
    """A level that two gates change in a narrow place, one up and one down as much.

    The sum over gates is flat, so that only the two rules' parts can tell.
    """

    n_columns = 2

    def __init__(self, width):
        self.width = width

    def levels(self, gates):
        return gates[:, 0] * 0.0 + 0.5

    def slopes(self, places):
        bump = torch.exp(-(((places - 0.31) / self.width) ** 2))
        return torch.stack([bump, -bump], 1)


def test_parts_that_cancel_in_the_sum_are_still_compared():
    width = 0.05
    found = gate_path(Spike(width), tolerance=1e-8)
    expected = width * np.sqrt(np.pi)
    assert found.effects.tolist() == pytest.approx([expected, -expected], abs=1e-7)
    capped = gate_path(Spike(width), tolerance=1e-8, most_panels=1)
    assert capped.closed == pytest.approx(0, abs=1e-12)
    assert capped.apart > 1e-4
