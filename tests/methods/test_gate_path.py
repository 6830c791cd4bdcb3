"""The gate path among the methods: the numbers of `iglens.gates`, counted."""

import pytest
import torch
from toys import make_trace, tiny_decoder, token

import iglens
from iglens.attribution.integral.quadrature import NODES
from iglens.methods import METHODS, Case, compare

IDS = [3, 1, 4, 1, 5]
TARGET = 7


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def decoder(request):
    return tiny_decoder(request.param, dtype=torch.float64)


def test_credits_are_the_effects_of_the_gate_path(decoder):
    found = compare(decoder, IDS, target=TARGET, methods="gate-path")
    effects = iglens.gates(decoder, IDS, target=TARGET)
    entry, (line,) = found.entries[0].found, found.table
    assert entry.credits.tolist() == pytest.approx(effects.effects[0].tolist())
    assert abs(line.error) < 1e-6
    assert abs(line.own_error) < 1e-12
    assert line.change == pytest.approx(found.change, abs=1e-6)
    assert f"off by {abs(effects.closed[0]):.1g} before" in entry.notes[0]
    assert f"differ by {effects.apart[0]:.1g} at" in entry.notes[0]


def test_every_pass_is_counted_there_and_back(decoder):
    cost = compare(decoder, IDS, target=TARGET, methods="gate-path").entries[0].cost
    (runs,) = iglens.gates(decoder, IDS, target=TARGET).runs
    assert cost.forwards == runs
    panels = cost.backwards // len(NODES)
    assert cost.backwards == panels * len(NODES) > 0
    assert cost.forwards == cost.backwards + 2 + (panels - 1) // 2
    assert cost.head == 0


def test_without_a_model_there_is_no_gate_path():
    case = Case(lambda: make_trace(rows=1), token(5))
    with pytest.raises(iglens.UnsupportedModelError, match="runs the model"):
        METHODS["gate-path"](case)
