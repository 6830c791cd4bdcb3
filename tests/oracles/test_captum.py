"""Captum as an oracle: conductance, and integrated gradients.

`make oracles` installs it in an environment of its own and runs this.
"""

import itertools

import pytest
import torch
from families import FAMILIES, part
from packages import oracle
from toys import tiny_decoder

import iglens
from iglens.methods import compare

attr = oracle("captum.attr")

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


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_the_gradient_estimator_is_integrated_gradients_along_every_step(family):
    decoder = tiny_decoder(family, dtype=torch.float64)
    states = decoder.trace(IDS, [len(IDS)]).states[:, 0]
    known = FAMILIES[family]
    norm, head = (part(decoder.model, name) for name in (known.norm, known.head))

    def probability(hidden):
        logits = known.post(head(norm(hidden)))
        return logits.softmax(-1)[:, TARGET]

    along = attr.IntegratedGradients(probability)
    expected = [
        float(
            along.attribute(
                end[None], start[None], n_steps=9, method="riemann_middle"
            ).sum()
        )
        for start, end in itertools.pairwise(states)
    ]
    found = compare(
        decoder, IDS, target=TARGET, methods="ig-lens-gradient", n_steps=9, audit=False
    )
    credits = found.entries[0].found.credits.tolist()
    assert credits == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_the_gate_path_is_integrated_gradients_of_the_gates(family):
    decoder = tiny_decoder(family, dtype=torch.float64)
    model, blocks = decoder.model, part(decoder.model, FAMILIES[family].blocks)

    def probability(gates):
        """The target's probability, blocks gated by hooks of our own."""

        def hook_of(layer):
            def hook(module, args, kwargs, output):
                gate = gates[:, layer, None, None]
                given = args[0] if args else kwargs["hidden_states"]
                after = output[0] if isinstance(output, tuple) else output
                mixed = (1 - gate) * given + gate * after
                return (mixed, *output[1:]) if isinstance(output, tuple) else mixed

            return hook

        handles = [
            block.register_forward_hook(hook_of(layer), with_kwargs=True)
            for layer, block in enumerate(blocks)
        ]
        try:
            ids = torch.tensor([IDS]).expand(len(gates), -1)
            logits = model(ids, use_cache=False).logits
        finally:
            for handle in handles:
                handle.remove()
        return logits[:, -1].softmax(-1)[:, TARGET]

    ones = torch.ones(1, decoder.n_layers, dtype=torch.float64)
    expected = attr.IntegratedGradients(probability).attribute(
        ones, torch.zeros_like(ones), n_steps=400, internal_batch_size=50
    )
    found = iglens.gates(decoder, IDS, target=TARGET, tolerance=1e-8)
    assert found.effects[0].tolist() == pytest.approx(expected[0].tolist(), abs=1e-5)
    assert max(abs(found.effects[0])) > 1e-3
