"""What correlations are compared to: shuffled targets, and random weights."""

import copy

import numpy as np
import pytest
import torch
from families import build, left_as_it_was, some_ids
from torch import nn

import iglens
from iglens.auditing import audit
from iglens.model.decoder import Decoder
from iglens.model.reinitialised import reinitialised

PROMPTS = [some_ids(n, seed=n) for n in (5, 7, 6)]
TARGETS = [5, 9, 11]


def spearman(one, other):
    ranks = [np.argsort(np.argsort(side)) for side in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3"])
def test_random_weights_are_those_of_the_class_and_the_seed(name):
    model = build(name)
    decoder = Decoder(model)
    before = torch.random.get_rng_state()
    made = reinitialised(decoder, 3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(3)
    expected = type(model)(copy.deepcopy(model.config))
    for (key, own), other in zip(
        made.model.named_parameters(), expected.parameters(), strict=True
    ):
        assert torch.equal(own, other), key
    assert "random weights" in made.info.id
    first, second = (
        next(p for p in m.parameters() if p.dim() > 1) for m in (made.model, model)
    )
    assert not torch.equal(first, second)


def test_the_null_is_the_audit_of_a_random_model():
    model = build("llama", num_hidden_layers=6)  # enough to be in another order
    decoder = Decoder(model)
    with left_as_it_was(model):
        found = audit(decoder, PROMPTS, target=TARGETS, nulls="random-weights", seed=3)
    other = audit(reinitialised(decoder, 3), PROMPTS, target=TARGETS, nulls="none")
    for method, numbers in (("credit", other.credits), ("update size", other.sizes)):
        for with_last, stop in ((True, 6), (False, 5)):
            expected = [
                spearman(own[:stop], effects[:stop])
                for own, effects in zip(numbers, other.effects.effects, strict=True)
            ]
            (one,) = (
                c
                for c in found.correlations
                if (c.method, c.with_last) == (method, with_last)
            )
            assert one.random == pytest.approx(np.mean(expected))
            assert one.random != pytest.approx(one.mean, abs=0.01)
            assert np.isnan(one.null)
    assert "random weights" in str(found)


@pytest.mark.parametrize(
    ("nulls", "shuffled", "random"),
    [
        ("shuffled", True, False),
        ("random-weights", False, True),
        ("both", True, True),
        ("none", False, False),
    ],
)
def test_nulls_are_those_that_were_asked_for(nulls, shuffled, random):
    found = audit(Decoder(build("gpt2")), PROMPTS, target=TARGETS, nulls=nulls)
    credit = found.correlations[0]
    assert np.isfinite(credit.null) == shuffled
    assert np.isfinite(credit.random) == random
    assert ("other texts' targets" in str(found)) == shuffled


def test_dtype_and_settings_are_kept():
    decoder = Decoder(build("llama", dtype=torch.bfloat16))
    made = reinitialised(decoder, 0)
    assert next(made.model.parameters()).dtype == torch.bfloat16
    assert made.model.config.to_dict() == decoder.model.config.to_dict()


class Plain(nn.Module):
    """A model that is none of Transformers'."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(20, 12)
        self.body = nn.Sequential(*(Adds() for _ in range(3)))
        self.head = nn.Linear(12, 20, bias=False)

    def forward(self, input_ids):
        return self.head(self.body(self.embed(input_ids)))


class Adds(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(12, 12)

    def forward(self, hidden):
        return hidden + self.linear(hidden).tanh()


def test_a_model_without_a_configuration_has_no_random_twin():
    decoder = Decoder(Plain())
    with pytest.raises(iglens.UnsupportedModelError, match="other `nulls`"):
        audit(decoder, [[3, 1, 4]], target=5, nulls="both")
    assert audit(decoder, [[3, 1, 4]], target=5).identities.layers == (0, 1, 2)


def test_an_unknown_null_is_refused_before_anything_runs():
    with pytest.raises(iglens.ArgumentError, match="shuffled, random-weights"):
        audit(Decoder(build("gpt2")), [[3]], target=[1, 2, 3], nulls="guesses")
