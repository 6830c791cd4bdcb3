"""TransformerLens as an oracle: residual states, logit lens, Direct Logit Attribution.

`make oracles` installs it in an environment of its own and runs this. It runs the saved
model under hooks of its own and reads it by code of its own; for Direct Logit
Attribution it folds the norms into the weights first.

Its conventions are made ours where they differ. It leaves out what a model does to its
logits after the head, which ours knows as a factor (`AFTER`). It does not centre the
unembedding where a soft-cap follows (`centred`). By default it moves the biases of
values from the heads to the bias of the output; a head of ours keeps its own, so that
is switched off.
"""

from dataclasses import dataclass
from functools import cached_property

import families
import numpy as np
import pytest
import torch
from oracle import tolerance
from packages import oracle

from iglens.methods import compare
from iglens.model.decoder import Decoder

bridges = oracle("transformer_lens.model_bridge")
analysis = oracle("transformer_lens.tools.analysis")

IDS, LAYERS, HEADS, VOCAB = [3, 1, 4, 1, 5, 9], 3, 4, 97
TARGETS = [7, 42]

FAMILIES = ("gpt2", "llama", "phi", "gemma2", "granite")
PARALLEL = ("phi",)
BIASED = ("gpt2", "phi")
AFTER = {"granite": 1 / 4}
HEADED = tuple(family for family in FAMILIES if family != "gemma2")
"""It does not take heads through the norm that follows attention, ours does."""

EXACT = ("gpt2",)
"""Float64 all through; the others round to float32 in norms or rotations."""


@dataclass
class Both:
    """One model of random weights, biases and gains, in both libraries, in float64."""

    family: str
    decoder: Decoder
    folder: str

    @cached_property
    def trace(self):
        """Our states of the last position, blocks taken apart."""
        return self.decoder.trace(IDS, [len(IDS)], by="sublayer")

    @cached_property
    def raw(self):
        """Its cache, weights as they are saved."""
        return self.bridge().run_with_cache(torch.tensor([IDS]))[1]

    @cached_property
    def folded(self):
        """Its bridge, gains and biases of norms folded into weights, and the cache."""
        bridge = self.bridge()
        bridge.enable_compatibility_mode(fold_value_biases=False)
        return bridge, bridge.run_with_cache(torch.tensor([IDS]))[1]

    def bridge(self):
        """Its model, from the folder."""
        return bridges.TransformerBridge.boot_transformers(
            self.folder, dtype=torch.float64, device="cpu"
        )

    def states_of(self, name):
        """An activation of its cache at the last position, by layer."""
        return torch.stack([self.raw[name, at][0, -1] for at in range(LAYERS)]).detach()

    def close_to(self, states):
        """What equals its states, up to rounding."""
        dtype = torch.float64 if self.family in EXACT else torch.float32
        return close_to(states, dtype)

    def ours(self, method, target):
        """What a method of ours gives for the token after the last."""
        found = compare(self.decoder, IDS, target=target, methods=method, audit=False)
        return found.entries[0].found

    def credits(self, method, target):
        """Our credits by (layer, part)."""
        found = self.ours(method, target)
        keys = zip(found.layers, found.parts, strict=True)
        credits = dict(zip(keys, found.credits.tolist(), strict=True))
        assert len(credits) == len(found.credits)
        return credits

    def centred(self, unit, target):
        """Its Direct Logit Attribution by label, less the mean over all tokens."""
        bridge, cache = self.folded
        found = [
            analysis.direct_logit_attribution(
                bridge, cache=cache, answer_tokens=token, unit=unit
            )
            for token in range(VOCAB)
        ]
        values = torch.stack([each.attribution.flatten() for each in found]).detach()
        credits = (values[target] - values.mean(0)) * AFTER.get(self.family, 1.0)
        return dict(zip(found[0].labels, credits.tolist(), strict=True))


def close_to(expected, dtype=torch.float32):
    """What equals the expected up to rounding; its readings are rounded to float32."""
    expected = np.asarray(expected, dtype=np.float64)
    allowed = tolerance(dtype, float(np.abs(expected).max()))
    return pytest.approx(expected, rel=0, abs=allowed)


@pytest.fixture(scope="module", params=FAMILIES)
def both(request, tmp_path_factory):
    decoder = Decoder(families.build(request.param, torch.float64))
    folder = tmp_path_factory.mktemp(request.param)
    decoder.model.save_pretrained(folder)
    families.tokenizer(bos=True).save_pretrained(folder)  # it wants one; unused here
    return Both(request.param, decoder, str(folder))


def test_its_residual_states_are_ours(both):
    final = both.states_of("resid_post")[-1:]
    expected = torch.cat([both.states_of("resid_pre"), final])
    assert both.trace.states[:, 0].numpy() == both.close_to(expected)


def test_its_states_inside_blocks_are_ours(both):
    parallel = both.family in PARALLEL  # what attention adds, for there is no middle
    inside = [both.trace.inside[layer + 1] for layer in range(LAYERS)]
    kinds = {parts.kind for parts in inside}
    assert kinds == {"parallel" if parallel else "sequential"}
    found = torch.stack([parts.between[0, 0] for parts in inside])
    expected = both.states_of("attn_out" if parallel else "resid_mid")
    assert found.numpy() == both.close_to(expected)


@pytest.mark.parametrize("target", TARGETS)
def test_its_logit_lens_is_ours(both, target):
    lens = both.raw.logit_lens(return_type="log_probs", targets=[target])
    expected = lens.values.flatten().tolist()
    assert len(expected) == LAYERS + 1  # the embedding first
    found = both.ours("logit-lens", target)
    assert found.unit == "probability"
    assert np.log(found.levels) == close_to(expected[1:])


@pytest.mark.parametrize("target", TARGETS)
def test_its_lens_with_the_scale_of_the_last_state_is_ours(both, target):
    bridge, cache = both.folded
    scaled = cache.apply_ln_to_stack(
        cache.accumulated_resid(pos_slice=-1), pos_slice=-1
    )
    lens = analysis.logit_readout(
        bridge, scaled, apply_ln=False, targets=[target], return_type="log_probs"
    )
    found = both.ours("logit-lens-frozen", target)
    assert np.log(found.levels) == close_to(lens.values.flatten()[1:].detach())


@pytest.mark.parametrize("target", TARGETS)
def test_its_attribution_to_parts_of_blocks_is_ours(both, target):
    parts = both.centred("component", target)
    names = {"attention": "attn_out", "mlp": "mlp_out"}
    found = both.credits("dla-sublayer", target)
    assert len(found) == 2 * LAYERS
    expected = [parts[f"{layer - 1}_{names[name]}"] for layer, name in found]
    assert list(found.values()) == close_to(expected)
    blocks = both.credits("dla", target)
    assert list(blocks) == [(layer + 1, "block") for layer in range(LAYERS)]
    assert list(blocks.values()) == close_to(np.reshape(expected, (-1, 2)).sum(1))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("both", HEADED, indirect=True)
def test_its_attribution_to_heads_is_ours(both, target):
    theirs, parts = (both.centred(unit, target) for unit in ("head", "component"))
    found = both.credits("dla-head", target)
    expected, ours = [], []
    for layer in range(LAYERS):
        heads = [theirs[f"L{layer}H{head}"] for head in range(HEADS)]
        bias = parts[f"{layer}_attn_out"] - sum(heads)
        expected += [*heads, bias, parts[f"{layer}_mlp_out"]]
        names = [*(f"head {head}" for head in range(HEADS)), "bias", "mlp"]
        ours += [found.get((layer + 1, name), 0.0) for name in names]
    assert ours == close_to(expected)
    written = {name for _, name in found} - {"rest", "mlp"}
    assert len(written) == HEADS + (both.family in BIASED)
