"""Checks on two devices; see `second_device`. Run in an interpreter of its own."""

import numpy as np
import pytest
import second_device
import torch
from accelerate import dispatch_model
from families import TEXT, Handmade, build, full_logits, some_ids, tokenizer

from iglens import Decoder, audit, compare, explain, gates

FAR = second_device.NAME
IDS = some_ids()
EVERY = {"positions": "all", "max_new_tokens": 0}

OPTIONS = (
    {},
    {"target": " Paris"},
    {"answer": " Paris of"},
    {"baseline": "zero"},
    {"baseline": "mean"},
    {"baseline": "paper-mean"},
    {"baseline": np.ones(32, np.float32)},
    {"unit": "log_odds"},
    {"unit": "log_probability"},
    {"estimator": "gradient"},
    {"positions": "prompt"},
    {"layers": "::2"},
    {"precision": torch.float64},
    {"max_new_tokens": 3},
)

MODULES = (
    "model.embed_tokens",
    "model.rotary_emb",
    "model.layers.0",
    "model.layers.1",
    "model.layers.2",
    "model.norm",
    "lm_head",
)

PATTERNS = ("nnnnfff", "ffffnnn", "ffffffn", "nnnfnfn", "fffffnf", "nnfffnn")
"""Which of the modules lie near, and which far."""


def assert_same(found, expected, note):
    for field in ("levels", "credits", "final", "rank", "fidelity", "lens_kl"):
        one, other = getattr(found, field), getattr(expected, field)
        np.testing.assert_allclose(
            one, other, rtol=1e-5, atol=1e-5, err_msg=f"{field} {note}"
        )


def the_second_device_is_as_strict_as_a_gpu():
    near = torch.arange(6.0).view(2, 3)
    far = near.to(FAR)
    assert far.device == torch.device(FAR, 0)
    assert torch.equal((far @ far.T).cpu(), near @ near.T)
    assert torch.equal(far.T.reshape(6)[1:4].cpu(), near.T.reshape(6)[1:4])
    for mixed in (
        lambda: far + near,
        lambda: torch.equal(far, near),
        lambda: torch.mm(near, far.T),
        lambda: near[far.long()],
    ):
        with pytest.raises((RuntimeError, IndexError)):
            mixed()
    far[:, 1:] += 5
    assert far.cpu().tolist() == [[0.0, 6.0, 7.0], [3.0, 9.0, 10.0]]
    model = build("llama").to(FAR)
    with torch.no_grad():
        logits = model(torch.tensor([IDS], device=FAR), use_cache=False).logits[0]
    expected = full_logits(build("llama"), IDS)
    assert torch.allclose(logits.cpu(), expected, atol=1e-5)
    with pytest.raises(RuntimeError):
        model(torch.tensor([IDS]))


def a_model_on_another_device_is_explained_there():
    for name, options in (("gemma2", OPTIONS), ("gpt2", OPTIONS[:1])):
        near = Decoder(build(name), tokenizer())
        far = Decoder(build(name).to(FAR), tokenizer())
        assert far.readout.kind == "explicit"
        for given in options:
            here, there = (explain(decoder, TEXT, **given) for decoder in (near, far))
            assert_same(there, here, f"{name} {given}")
        traces = far.trace_many([IDS, IDS[:5]], [[3, 4], [2]])
        assert all(trace.states.device.type == FAR for trace in traces)
        assert len(far.generate(IDS, 3)) == 3


def places_of(pattern):
    """Where every module lies."""
    return [FAR if letter == "f" else "cpu" for letter in pattern]


def spread(pattern=PATTERNS[0]):
    """A model over both devices."""
    places = dict(zip(MODULES, places_of(pattern), strict=True))
    return dispatch_model(build("llama"), places, main_device="cpu", force_hooks=True)


def a_model_spread_over_two_devices_is_one_model():
    expected = explain(Decoder(build("llama")), IDS, **EVERY)
    for pattern in PATTERNS:
        model, places = spread(pattern), places_of(pattern)
        assert {weight.device.type for weight in model.parameters()} == {FAR, "cpu"}
        decoder = Decoder(model)
        assert decoder.readout.kind == "explicit"
        assert_same(explain(decoder, IDS, **EVERY), expected, pattern)
        last_block = places[MODULES.index("model.layers.2")]
        assert decoder.trace(IDS, [3, 5]).states.device.type == last_block


def blocks_are_gated_wherever_they_lie():
    asked = {"target": 5, "tolerance": 1e-5}
    audited = {"ablation": "mean", "gates": True, "curves": True, "nulls": "both"}
    near = Decoder(build("llama"))
    for make in (lambda: build("llama").to(FAR), spread, lambda: spread(PATTERNS[3])):
        far = Decoder(make())
        for by in ("layer", "sublayer"):
            here, there = (
                gates(decoder, IDS, by=by, **asked) for decoder in (near, far)
            )
            np.testing.assert_allclose(there.effects, here.effects, atol=1e-5)
            here, there = (
                audit(decoder, [IDS, IDS[:5]], by=by, **asked, **audited)
                for decoder in (near, far)
            )
            for field in ("effects", "gates"):
                one, other = (getattr(side, field).effects for side in (there, here))
                np.testing.assert_allclose(one, other, atol=1e-5)
            assert not there.identities.beyond.any()


def every_method_runs_where_the_model_lies():
    here, there = (
        compare(decoder, IDS, target=5, n_steps=4)
        for decoder in (Decoder(build("llama")), Decoder(build("llama").to(FAR)))
    )
    for one, other in zip(there.entries, here.entries, strict=True):
        assert (one.found is None) == (other.found is None), one.reason
        if one.found is not None:
            np.testing.assert_allclose(
                one.found.values, other.found.values, atol=1e-5, err_msg=one.name
            )


class Split(Handmade):
    """The norm lies far, and the forward moves its states itself."""

    def __init__(self):
        super().__init__()
        self.norm.to(FAR)

    def forward(self, input_ids):
        hidden = self.body(self.embed(input_ids)).to(FAR)
        return self.head(self.norm(hidden).to("cpu"))


def a_forward_that_moves_its_states_itself_is_read_right():
    found = explain(Decoder(Split()), [3, 17, 5], **EVERY)
    assert_same(found, explain(Decoder(Handmade()), [3, 17, 5], **EVERY), "by hand")


def main():
    torch.set_num_threads(1)
    the_second_device_is_as_strict_as_a_gpu()
    a_model_on_another_device_is_explained_there()
    a_model_spread_over_two_devices_is_one_model()
    a_forward_that_moves_its_states_itself_is_read_right()
    blocks_are_gated_wherever_they_lie()
    every_method_runs_where_the_model_lies()
