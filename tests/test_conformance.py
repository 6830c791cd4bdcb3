"""The conformance run: a sample of it, its own guards, and the age of its table."""

import warnings
from dataclasses import replace
from importlib.metadata import version

import pytest
import torch

from conformance import declarations, inside, opened, prove, run, table, tiny
from conformance.rows import Row
from iglens import Decoder, UnsupportedModelError
from iglens.model.declaration import Declaration
from iglens.model.inside.sublayers import Sublayers

ODD = {
    "llama": "explicit",
    "gemma2": "explicit",
    "granite": "explicit",
    "minicpm3": "explicit",  # scaled before the head
    "mamba": "explicit",
    "deepseek_v4": "explicit",  # several streams, merged by a module
    "xlnet": "explicit",  # tokens before texts; declared to read left to right
    "musicgen": "explicit",  # one distribution per codebook; declared inputs
    "xlm": "explicit",  # no block modules; declared first module
    "hrm_text": "explicit",  # looped blocks
    "rwkv": "explicit",  # the stream is halved between blocks
    "prophetnet": "injected",  # the text stands three times on its axis
    "reformer": "injected",  # two tensors
    "cpmant": "injected",  # a prefix, and tokens that see later ones
    "blt": "injected",  # bytes and patches
}


CLASSIFIERS = {
    "gemma2": ("exact", "explicit"),  # which caps the language model's logits
    "gemma3": ("exact", "explicit"),  # images beside the text
    "jamba": ("exact", "explicit"),
    "modernbert-decoder": ("exact", "explicit"),
    "xlnet": ("exact", "injected"),
    "roberta": ("refused", ""),  # reads its first token
    "bart": ("refused", ""),
}


def built(model_type, dtype=torch.float32, kind=tiny.CAUSAL):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # models warn of sizes this small
        return tiny.build(kind, model_type, dtype)


def proved(model_type, dtype=torch.float32):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return prove.prove(built(model_type, dtype), tiny.declaration(model_type))


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ODD)
def test_odd_classes_are_exact(model_type):
    proof = proved(model_type)
    assert (proof.status, proof.readout) == ("exact", ODD[model_type]), proof.reason


@pytest.mark.parametrize("model_type", ["gemma2", "prophetnet"])
def test_they_are_exact_in_float64_too(model_type):
    proof = proved(model_type, torch.float64)
    assert proof.status == "exact", proof.reason
    assert proof.missed < 1e-12


def test_text_behind_an_image_is_read_with_the_image_as_a_prefix():
    model = built("blip-2", kind=tiny.IMAGE_TEXT)
    declared = tiny.declaration("blip-2")
    decoder = Decoder(model, declaration=declared)
    assert decoder.verified.stream.prefix == declarations.IMAGE_TOKENS
    assert prove.prove(model, declared).status == "exact"


def test_a_tail_that_reads_other_states_is_refused():
    proof = proved("inkling2_text")
    assert proof.status == "refused"
    assert "no stack of layers has a per-position readout" in proof.reason


@pytest.mark.parametrize("model_type", ["cpmant", "prophetnet"])
def test_what_sees_later_tokens_is_refused_unless_declared(model_type):
    declared = tiny.declaration(model_type)
    alone = Declaration(inputs=declared.inputs)
    assert "not causal" in prove.prove(built(model_type), alone).reason
    decoder = Decoder(built(model_type), declaration=declared)
    decoder.trace([5, 6, 7], [3])
    with pytest.raises(UnsupportedModelError, match="only position 3, what comes"):
        decoder.trace([5, 6, 7], [2, 3])


def test_knobs_and_biases_act():
    model = built("gemma2")
    assert model.config.final_logit_softcapping == 5.0
    assert proved("gemma2").postprocess == "softcap 5"
    weights = [p.detach() for p in model.parameters() if p.numel() > 1]
    assert all(float(weight.std()) > 0.01 for weight in weights)


def test_texts_that_are_mixed_up_are_called_wrong(monkeypatch):
    decoder = Decoder(built("llama"))
    assert prove.missed_together(decoder) <= prove.LIMITS[torch.float32]
    whole = type(decoder).trace_many
    monkeypatch.setattr(type(decoder), "trace_many", lambda *given: whole(*given)[::-1])
    assert prove.missed_together(decoder) > 1e-3


def test_a_wrong_readout_is_called_wrong():
    decoder = Decoder(built("llama"))
    assert prove._missed(decoder, Declaration()) <= prove.LIMITS[torch.float32]
    readout = decoder.readout
    capped = replace(readout, own_logits=lambda h: readout.own_logits(h).clamp(-2, 2))
    decoder.verified = replace(decoder.verified, readout=capped)
    assert prove._missed(decoder, Declaration()) > 1e-3


def row(status, double="exact", kind=tiny.CAUSAL):
    return Row(
        kind,
        "llama",
        "LlamaForCausalLM",
        "",
        prove.Proof(
            status, readout="explicit", missed=0.1, parts="sequential (attention, mlp)"
        ),
        prove.Proof(double, missed=0.2, opened="heads, neurons, sources"),
    )


def classifier(status):
    """A classifier that is exact with two labels; with one it has that status."""
    made = row("exact", kind=tiny.CLASSIFIER)
    return replace(made, reward=(prove.Proof("exact"), prove.Proof(status)))


def test_only_wrong_readings_and_lost_classes_are_complaints():
    good = row("exact")
    assert run.complaints([good, row("refused")], whole=False) == []
    others = [row("exact", kind=tiny.IMAGE_TEXT)] * 94
    others += [classifier("exact")] * 87
    enough = [good] * 181 + others
    assert run.complaints(enough, whole=True) == []
    fewer = [good] * 181 + others[:-30] + [classifier("refused")] * 30
    assert "classifier: 57 exact with one label, 64 before" in run.complaints(
        fewer, whole=True
    )
    assert "is read wrongly" in run.complaints([classifier("wrong")], whole=False)[0]
    assert "0.1" in run.complaints([row("wrong")], whole=False)[0]
    assert "0.2" in run.complaints([row("exact", "wrong")], whole=False)[0]
    assert "causal: 177 exact, 178 before" in run.complaints(enough[4:], whole=True)


def test_shares_that_do_not_add_up_are_a_complaint():
    for odd in (1e-3, float("nan")):
        double = replace(row("exact").double, unsummed=odd)
        (said,) = run.complaints([replace(row("exact"), double=double)], whole=False)
        assert "opened wrongly" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_type", "words"),
    [
        ("llama", "heads, neurons, sources"),
        ("bloom", "neurons"),
        ("gpt_oss", "heads, experts, sources"),
        ("mamba", ""),
    ],
)
def test_how_far_down_a_class_opens(model_type, words):
    decoder = Decoder(built(model_type).double())
    found, missed = opened.opened(decoder)
    assert found == words
    assert missed < 1e-9


def test_shares_that_miss_the_credit_are_seen(monkeypatch):
    from iglens.records.components import Components

    decoder = Decoder(built("llama").double())
    own = Components.totals.fget
    monkeypatch.setattr(Components, "totals", property(lambda c: own(c) * 1.01))
    assert opened.opened(decoder)[1] > 1e-4


def test_a_state_that_does_not_decide_its_block_is_a_complaint():
    single = replace(row("exact").single, misplaced=0.25)
    (said,) = run.complaints([replace(row("exact"), single=single)], whole=False)
    assert "split wrongly" in said
    assert "0.25" in said


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["llama", "gpt_neox", "zamba2", "xlm", "blt"])
def test_states_between_parts_are_judged_by_intervention(model_type):
    proof = proved(model_type)
    assert proof.misplaced <= 1e-6
    assert proof.parts


def test_another_state_in_the_middle_misses():
    decoder = Decoder(built("llama"))
    plans = list(decoder.sublayers.blocks)
    wrong = replace(plans[1].sites[0], module="model.layers.1.mlp")
    parts = (replace(plans[1].parts[0], site=wrong), plans[1].parts[1])
    plans[1] = replace(plans[1], parts=parts)
    assert inside.missed_inside(decoder) == 0
    decoder.__dict__["sublayers"] = Sublayers(tuple(plans))
    assert inside.missed_inside(decoder) > 1e-3


def test_vectors_that_leave_something_out_miss():
    decoder = Decoder(built("gpt_neox"))
    plans = [
        replace(plan, parts=(replace(plan.parts[0], site_scale=0.9), plan.parts[1]))
        for plan in decoder.sublayers.blocks
    ]
    assert inside.missed_inside(decoder) <= 1e-6
    decoder.__dict__["sublayers"] = Sublayers(tuple(plans))
    assert inside.missed_inside(decoder) > 1e-3


def test_classes_are_split_whose_every_block_is():
    whole, part = row("exact"), row("exact")
    part = replace(part, single=replace(part.single, unsplit="no state lies between"))
    assert table.counts([whole, part, row("refused")], tiny.CAUSAL)["split"] == 2
    page = table.render([part], {"transformers": "5", "torch": "2"})
    assert "| sequential (attention, mlp) |" in page
    assert "- **llama**, not split: no state lies between" in page


def test_a_page_can_be_read_back():
    page = table.render([row("exact")], {"transformers": "5.0.1", "torch": "2.6"})
    assert table.classes_in(page) == {"LlamaForCausalLM"}
    assert table.version_in(page, "transformers") == "5.0.1"
    assert table.version_in(page, "torch") == "2.6"


def test_a_page_tells_one_label_from_two():
    page = table.render([classifier("refused")], {"transformers": "5", "torch": "2"})
    assert "| one label |" in page
    assert "| exact | exact | exact / refused | explicit |" in page
    assert "- **llama** with one label, refused:" in page


@pytest.mark.slow
@pytest.mark.parametrize("kind", [tiny.CLASSIFIER, tiny.REWARD])
@pytest.mark.parametrize("model_type", CLASSIFIERS)
def test_a_sample_of_classifiers_is_exact_or_refused(model_type, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = tiny.build(kind, model_type, torch.float32)
        proof = prove.prove(model, tiny.declaration(model_type))
    assert (proof.status, proof.readout) == CLASSIFIERS[model_type], proof.reason


@pytest.mark.parametrize("kind", [tiny.CLASSIFIER, tiny.REWARD])
def test_a_wrong_reading_of_a_classifier_is_called_wrong(kind):
    decoder = Decoder(built("llama", kind=kind))
    assert prove._missed(decoder, Declaration()) <= prove.LIMITS[torch.float32]
    readout = decoder.readout
    scaled = replace(readout, own_logits=lambda h: readout.own_logits(h) * 1.01)
    decoder.verified = replace(decoder.verified, readout=scaled)
    assert prove._missed(decoder, Declaration()) > 1e-4


def test_the_table_in_the_docs_is_of_the_installed_transformers():
    page = run.PAGE.read_text(encoding="utf-8")
    assert table.version_in(page, "transformers") == version("transformers"), (
        "stale: run `make conformance`"
    )
    for kind in tiny.KINDS:
        assert set(tiny.model_types(kind).values()) <= table.classes_in(page)
    assert "| wrong |" in page
    assert "failed" not in table.statuses_in(page)
    assert "wrong" not in table.statuses_in(page)
