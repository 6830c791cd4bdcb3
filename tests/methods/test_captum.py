"""Captum's own LayerConductance as the oracle of its rule; skipped where it is not."""

import pytest
import torch
from toys import tiny_decoder

from iglens.methods import compare

attr = pytest.importorskip(
    "captum.attr", reason="Captum is not installed (an oracle only): pip install captum"
)

IDS = [3, 1, 4, 1, 5]
TARGET = 7


@pytest.mark.parametrize("n_steps", [4, 11])
@pytest.mark.parametrize("family", ["llama", "gpt2", "phi"])
def test_captums_rule_is_that_of_captum(family, n_steps):
    decoder = tiny_decoder(family, dtype=torch.float64)
    model = decoder.model
    embedded = model.get_input_embeddings()(torch.tensor([IDS])).detach()

    def probability(inputs):
        logits = model(inputs_embeds=inputs, use_cache=False).logits
        return logits[:, -1].softmax(-1)[:, TARGET]

    blocks = model.transformer.h if family == "gpt2" else model.model.layers
    expected = [
        float(
            attr.LayerConductance(probability, block)
            .attribute(embedded, torch.zeros_like(embedded), n_steps=n_steps)
            .sum()
            .detach()
        )
        for block in blocks
    ]
    found = compare(
        decoder, IDS, target=TARGET, methods="conductance-captum", n_steps=n_steps
    )
    credits = found.entries[0].found.credits.tolist()
    assert credits == pytest.approx(expected, rel=1e-6, abs=1e-9)
