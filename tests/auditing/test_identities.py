"""What agrees by construction is measured, and told where it does not agree."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from families import build, some_ids

from iglens.auditing import audit
from iglens.auditing.identities import layers_to_try, measured
from iglens.auditing.prepared import Manner, Texts
from iglens.gating.stage import Stage, silent
from iglens.model.decoder import Decoder

PROMPTS = [some_ids(n, seed=n) for n in (5, 7)]


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3", "phi", "olmo2"])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"by": "sublayer", "unit": "log_odds"},
        {"ablation": "mean", "at": "last", "unit": "log_probability"},
    ],
)
def test_both_identities_hold_in_every_audit(name, given):
    found = audit(Decoder(build(name)), PROMPTS, target=5, **given)
    identities = found.identities
    assert identities.layers == (0, 1, 2)
    assert np.abs(identities.readout).max() < 1e-4
    assert np.abs(identities.last).max() < 1e-4
    assert not identities.beyond.any()
    assert found.warnings == found.effects.warnings
    assert "Self-test: the model with all blocks" in str(found)


def texts_of(decoder, **changes):
    manner = Manner("layer", "probability", "all", "skip", **changes)
    return Texts.of(decoder, PROMPTS, [5, 9], manner, Stage(silent, "Runs"))


def test_levels_of_another_layer_are_beyond_rounding():
    texts = texts_of(Decoder(build("llama")))
    assert not measured(texts).beyond.any()
    rolled = [
        replace(result, levels=np.roll(result.levels, 1, axis=1))
        for result in texts.results
    ]
    assert measured(replace(texts, results=tuple(rolled))).beyond.all()


def test_blocks_that_are_not_skipped_are_beyond_rounding(monkeypatch):
    from iglens.model import intervene

    half = intervene._Mixing.__call__

    def leaky(self, column, before, after):
        gates = self.gates.clamp(min=0.05)  # a closed gate lets a little through
        return half(replace(self, gates=gates), column, before, after)

    monkeypatch.setattr(intervene._Mixing, "__call__", leaky)
    found = audit(Decoder(build("llama")), PROMPTS, target=5)
    assert found.identities.beyond.all()
    assert any("Skipping blocks and reading states" in said for said in found.warnings)
    assert "NOT identical" in str(found)


@pytest.mark.parametrize("n_layers", [1, 2, 3, 30])
def test_the_embedding_and_the_last_but_one_are_always_tried(n_layers):
    layers = layers_to_try(n_layers)
    assert (layers[0], layers[-1]) == (0, n_layers - 1)
    assert len(layers) <= 4


def test_the_progress_counts_every_run():
    told = []
    audit(
        Decoder(build("llama", dtype=torch.float64)),
        PROMPTS,
        target=5,
        curves=True,
        progress=lambda *given: told.append(given),
    )
    runs = [(done, total) for stage, done, total in told if stage == "Runs"]
    assert runs[-1][0] == runs[-1][1]
