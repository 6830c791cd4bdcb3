"""Classifiers and reward models: the same identity, on the logits of labels."""

from dataclasses import replace

import classifiers as c
import numpy as np
import pytest
import torch
import transformers as hf
from classifiers import Judge, own_logits
from families import SIZES, TEXT, VOCAB, fingerprint, left_as_it_was, part, tokenizer

from iglens import (
    ArgumentError,
    Attribution,
    Decoder,
    FidelityError,
    TargetError,
    UnsupportedModelError,
    attribute,
    explain,
)
from iglens.model.padding import padded
from iglens.model.pooling import as_it_answers
from iglens.model.runner import Runner

IDS = [5, 17, 9, 40, 61, 7, 33]
LIMIT = {torch.float32: 2e-5, torch.float64: 1e-12}


def random_vectors(like, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(len(IDS), 32, generator=generator).to(like.dtype)


# --- exact ---------------------------------------------------------------------------


CASES = [
    *((name, 2, torch.float32) for name in c.KINDS),
    *((name, 1, torch.float32) for name in ("gemma3", "gpt2", "mixtral")),
    *((name, n, torch.float64) for name in ("llama", "opt") for n in (1, 2)),
]


@pytest.mark.parametrize(("name", "labels", "dtype"), CASES)
def test_reading_equals_a_full_forward_with_the_last_output_replaced(
    name, labels, dtype
):
    model = c.build(name, labels, dtype)
    vectors = random_vectors(model.score.weight)
    truth = c.logits_of_replaced(model, name, IDS, vectors)
    with left_as_it_was(model):
        decoder = Decoder(model)
        assert decoder.readout.kind == "explicit"
        assert decoder.readout.vocab_size == labels
        read = decoder.readout.logits(vectors[-1:])[0]
    assert float((read - truth).abs().max()) <= LIMIT[dtype]
    assert decoder.verified.power > 300


@pytest.mark.parametrize("name", ["llama", "gpt2", "phi", "opt with a projection"])
def test_credits_are_differences_of_the_heads_own_reading(name):
    model = c.build(name)
    states = c.states_by_hooks(model, name, IDS)
    probabilities = c.oracle_logits(model, name, states).softmax(-1)
    result = explain(Decoder(model), IDS)
    label = int(own_logits(model, IDS).argmax())
    assert result.targets[0].ids == (label,)
    np.testing.assert_allclose(result.levels[0], probabilities[:, label], atol=1e-5)
    assert result.positions.tolist() == [len(IDS)]
    np.testing.assert_allclose(
        result.baseline + result.credits.sum(1), result.final, atol=1e-12
    )


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt"])
def test_a_reward_is_explained_as_the_logit_it_is(name):
    model = c.build(name, 1)
    result = explain(Decoder(model), IDS)
    assert (result.unit, result.readout.measure) == ("logit", "logit")
    np.testing.assert_allclose(result.final, own_logits(model, IDS), atol=1e-5)
    states = c.states_by_hooks(model, name, IDS)
    expected = np.diff(c.oracle_logits(model, name, states)[:, 0])
    np.testing.assert_allclose(result.credits[0], expected, atol=1e-4)
    assert result.depths[0].prediction_depth is None


def test_the_cap_of_the_language_model_is_not_the_classifiers():
    model = c.build("gemma2")
    assert model.config.final_logit_softcapping == 5.0
    with torch.no_grad():
        model.score.weight *= 100
    assert float(own_logits(model, IDS).abs().max()) > 20
    assert Decoder(model).readout.postprocess == "identity"


@pytest.mark.parametrize("unit", ["probability", "log_probability", "log_odds"])
def test_two_labels_have_every_unit(unit):
    model = c.build("llama", 3)
    p = own_logits(model, IDS).double().softmax(-1)[1]
    expected = {
        "probability": p,
        "log_probability": p.log(),
        "log_odds": p.log() - (1 - p).log(),
    }[unit]
    result = explain(Decoder(model), IDS, target=1, unit=unit)
    assert result.final[0] == pytest.approx(float(expected), abs=1e-5)


def test_a_contrast_of_labels_is_the_difference_of_their_logits():
    model = c.build("llama", 3, **c.APART)
    decoder = Decoder(model)
    logits = own_logits(model, IDS)
    result = explain(decoder, IDS, target=2, contrast="LABEL_0")
    assert result.final[0] == pytest.approx(float(logits[2] - logits[0]), abs=1e-5)


def test_low_precision_is_verified_in_its_own_dtype():
    for labels in (1, 2):
        model = c.build("llama", labels, torch.bfloat16)
        decoder = Decoder(model)
        assert decoder.verified.power > 10
        result = explain(decoder, IDS, unit="logit")
        assert result.fidelity.max() <= result.readout.tolerance
        assert 0 < result.precision_gap.max() < 0.1


# --- what does not fit is refused -----------------------------------------------------


def test_of_no_distribution_there_is_no_probability():
    reward = Decoder(c.build("llama", 1))
    with pytest.raises(ArgumentError, match="softmax of a single logit is 1"):
        explain(reward, IDS, unit="probability")
    for kind in ("multi_label_classification", "regression"):
        apart = Decoder(c.build("llama", 3, problem_type=kind))
        with pytest.raises(ArgumentError, match="judged one by one"):
            explain(apart, IDS, unit="log_odds")
        assert explain(apart, IDS).unit == "logit"
    with pytest.raises(TargetError, match="'entropy' is of a distribution"):
        explain(reward, IDS, target="@entropy")
    with pytest.raises(ArgumentError, match="`diagnostics` are of a distribution"):
        explain(reward, IDS, diagnostics=True)
    with pytest.raises(TargetError, match="'LABEL_0' has no rival"):
        explain(reward, IDS, contrast="@rival")


def test_only_the_whole_text_can_be_explained():
    decoder = Decoder(c.build("llama"), tokenizer())
    for positions in ([2], "prompt", ":3", [len(IDS) - 1, len(IDS)]):
        with pytest.raises(ArgumentError, match=r"explained at 7 alone.*up to there"):
            explain(decoder, IDS, positions=positions)
    for positions in ("answer", "all", [len(IDS)], "-1:"):
        assert explain(decoder, IDS, positions=positions).positions.tolist() == [7]
    with pytest.raises(ArgumentError, match="judges texts and generates none"):
        decoder.generate(IDS, 3)
    with pytest.raises(ArgumentError, match="answers with a label"):
        explain(decoder, TEXT, answer=" Paris")


def test_an_earlier_place_is_that_of_the_text_cut_there():
    model = c.build("mistral")
    decoder = Decoder(model)
    cut = explain(decoder, IDS[:4], target="POSITIVE")
    expected = own_logits(model, IDS[:4]).softmax(-1)[1]
    assert cut.final[0] == pytest.approx(float(expected), abs=1e-6)


def test_models_that_read_elsewhere_are_refused_with_what_they_read():
    for read in (c.one_before, c.first, c.mean):
        with pytest.raises(UnsupportedModelError, match="output at other positions"):
            Decoder(Judge(read))
    for labels in (1, 2):
        config = hf.BertConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
            vocab_size=VOCAB,
            num_labels=labels,
        )
        with pytest.raises(UnsupportedModelError, match="misses the model by"):
            Decoder(c.randomise(hf.BertForSequenceClassification(config)))


# --- mutants --------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [1, 2])
def test_states_that_are_normed_already_are_refused(labels):
    model = c.build("llama", labels)
    trace = Decoder(model).trace(IDS, [len(IDS)])
    with torch.no_grad():
        normed = torch.stack([*trace.states[:-1], model.model.norm(trace.states[-1])])
    with pytest.raises(FidelityError, match="already carries the final norm"):
        attribute(trace.with_states(normed, trace.logits))


@pytest.mark.parametrize("labels", [1, 2])
def test_the_states_of_another_token_are_refused(labels):
    model = c.build("llama", labels)
    decoder = Decoder(model)
    trace = decoder.trace(IDS, [len(IDS)])
    [every] = decoder.states([IDS])
    with pytest.raises(FidelityError, match="does not give the model's own"):
        attribute(trace.with_states(every[:, -2:-1], trace.logits))
    attribute(trace.with_states(every[:, -1:], trace.logits))


@pytest.mark.parametrize("labels", [1, 2])
def test_states_a_layer_early_are_refused_and_named(labels):
    trace = Decoder(c.build("llama", labels)).trace(IDS, [len(IDS)])
    early = torch.stack([trace.states[0], *trace.states[:-1]])
    late = torch.stack([*trace.states[:-2], trace.states[-1], trace.states[-2]])
    for states, reason in ((early, "No simple relation"), (late, "1 step.s. before")):
        with pytest.raises(FidelityError, match=reason):
            attribute(trace.with_states(states, trace.logits))


def test_what_moves_every_label_alike_is_seen_in_logits_alone():
    model = c.build("llama", 2)
    trace = Decoder(model).trace(IDS, [len(IDS)])
    moved = replace(trace, logits=trace.logits + 0.01)
    assert attribute(moved).fidelity.max() < 1e-6
    with pytest.raises(FidelityError, match="does not give the model's own"):
        attribute(moved, unit="logit")


def test_a_reward_that_is_moved_is_refused():
    model = c.build("llama", 1)
    decoder = Decoder(model)
    trace = decoder.trace(IDS, [len(IDS)])
    with pytest.raises(FidelityError, match=r"misses by 0\.01 in a logit"):
        attribute(replace(trace, logits=trace.logits + 0.01))
    handle = model.score.register_forward_hook(lambda *given: given[-1] * 1.01)
    with pytest.raises((FidelityError, UnsupportedModelError)):
        explain(decoder, IDS)
    handle.remove()
    explain(decoder, IDS)


def test_power_and_tolerance_of_a_reward_are_those_of_its_logit():
    verified = Decoder(c.build("llama", 1)).verified
    assert 0 < verified.tolerance.of("logit") < 1e-3
    with torch.no_grad():
        same = c.build("llama", 1)
        for block in same.model.layers:  # every state is the embedding
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
    decoder = Decoder(same)
    assert decoder.verified.power < 1
    assert any("cannot tell" in text for text in explain(decoder, IDS).warnings)


# --- padding --------------------------------------------------------------------------

TEXTS = [[5, 17, 9, 30, 21], [5, 17, 9], [8], [3, 4, 5, 6, 7, 8, 9, 10]]


@pytest.mark.parametrize(
    ("name", "labels", "pad"),
    [
        ("llama", 2, None),
        ("llama", 1, 0),
        ("llama", 2, 11),
        ("gpt2", 1, None),
        ("mistral", 2, 0),
        ("opt", 1, 11),
    ],
)
def test_a_ragged_batch_is_one_by_one(name, labels, pad):
    model = c.build(name, labels, pad_token_id=pad)
    with left_as_it_was(model):
        decoder = Decoder(model)
        assert decoder.batch_safe
        traces = decoder.trace_many(TEXTS, [[len(text)] for text in TEXTS])
    assert model.config.pad_token_id == pad
    for text, trace in zip(TEXTS, traces, strict=True):
        assert not any("one by one" in note for note in trace.warnings)
        own = own_logits(model, text)
        np.testing.assert_allclose(trace.logits[0], own, atol=1e-5)
        together = attribute(trace, decoder.target(0))
        alone = explain(decoder, text, target=0)
        np.testing.assert_allclose(together.levels, alone.levels, atol=1e-4)


def test_a_model_that_reads_padding_runs_texts_one_by_one():
    model = Judge(c.very_last)
    decoder = Decoder(model)
    assert not decoder.batch_safe
    traces = decoder.trace_many(TEXTS, [[len(text)] for text in TEXTS])
    for text, trace in zip(TEXTS, traces, strict=True):
        assert any("one by one" in note for note in trace.warnings)
        with torch.no_grad():
            own = model(torch.tensor([text]))["logits"]
        torch.testing.assert_close(trace.logits, own)


def test_a_model_that_goes_by_the_mask_takes_them_together():
    model = Judge(c.last_by_mask, 1)
    decoder = Decoder(model)
    assert decoder.batch_safe
    traces = decoder.trace_many(TEXTS, [[len(text)] for text in TEXTS])
    assert not any("one by one" in note for t in traces for note in t.warnings)
    assert all(attribute(trace).unit == "logit" for trace in traces)


@pytest.mark.parametrize("labels", [1, 2])
def test_padding_at_the_end_of_a_text_is_read_over_and_said_so(labels):
    model = c.build("llama", labels)  # its padding token is 0
    decoder = Decoder(model)
    filled = explain(decoder, [*IDS, 0, 0], target=0)
    plain = explain(decoder, IDS, target=0)
    assert filled.positions.tolist() == [len(IDS)]
    assert any("ends with padding" in note for note in filled.warnings)
    assert not any("ends with padding" in note for note in plain.warnings)
    np.testing.assert_allclose(filled.levels, plain.levels, atol=1e-4)
    with pytest.raises(ArgumentError, match="explained at 7 alone"):
        decoder.trace([*IDS, 0, 0], [9])


def test_a_padding_token_that_is_read_like_any_other_is_not_read_over():
    decoder = Decoder(c.build("llama", pad_token_id=None))
    assert explain(decoder, [*IDS, 0], target=0).positions.tolist() == [len(IDS) + 1]

    class Careless(hf.LlamaForSequenceClassification):
        def forward(self, input_ids, attention_mask=None, use_cache=False):
            hidden = self.model(input_ids, attention_mask, use_cache=False)
            return {"logits": self.score(hidden.last_hidden_state)[:, -1]}

    careless = c.randomise(Careless(hf.LlamaConfig(**SIZES)))
    decoder = Decoder(careless)
    assert explain(decoder, [*IDS, 0], target=0).positions.tolist() == [len(IDS) + 1]
    assert not decoder.batch_safe


def test_a_lent_padding_token_is_taken_back_whatever_happens():
    model = c.build("llama", pad_token_id=None)
    before = fingerprint(model)
    ids = torch.tensor([[0, 1, 2], [4, 5, 5]])
    filling = torch.tensor([[False, False, False], [False, False, True]])
    seen = []

    def interrupted(texts):
        seen.append((model.config.pad_token_id, texts.tolist()))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), padded(model, ids, filling) as texts:
        interrupted(texts)
    assert seen == [(3, [[0, 1, 2], [4, 5, 3]])]  # the first id that no text holds
    assert fingerprint(model) == before


def test_one_text_runs_as_it_is():
    model = c.build("llama", pad_token_id=None)
    runner = as_it_answers(Runner(model))
    asked = []

    def seen(module, args, kwargs):
        asked.append((kwargs["input_ids"].tolist(), model.config.pad_token_id))

    handle = model.register_forward_pre_hook(seen, with_kwargs=True)
    runner(torch.tensor([IDS]))
    handle.remove()
    assert asked == [([IDS], None)]


# --- names, tokens, files -------------------------------------------------------------


def test_targets_are_labels_by_name_number_or_set():
    model = c.build("llama")
    decoder = Decoder(model, tokenizer())
    assert decoder.labels.names == c.NAMES
    assert decoder.target("POSITIVE").ids == decoder.target(1).ids == (1,)
    both = explain(decoder, TEXT, target=["POSITIVE", "NEGATIVE|POSITIVE"])
    assert [t.text for t in both.targets] == ["POSITIVE", "NEGATIVE|POSITIVE"]
    assert both.final[1] == pytest.approx(1.0)
    assert set(both.vocabulary.values()) == set(c.NAMES)
    for wrong in ("positive", " Paris", 2, -1):
        with pytest.raises(TargetError, match="0 'NEGATIVE', 1 'POSITIVE'"):
            decoder.target(wrong)


def test_a_label_may_hold_a_bar():
    names = {0: "a|b", 1: "a", 2: "b"}
    model = c.build("llama", 3, id2label=names, label2id={})
    decoder = Decoder(model)
    assert decoder.target("a|b").ids == (0,)
    assert decoder.target("b|a").ids == (2, 1)


def test_tokens_of_the_text_are_not_counted_in_labels():
    decoder = Decoder(c.build("llama"), tokenizer())
    result = explain(decoder, [VOCAB - 1, 4])
    assert result.token_texts[1] == tokenizer().decode([4])
    assert result.provenance.model.vocab_size == 2
    with pytest.raises(ArgumentError, match=rf"token id {VOCAB}; this model has"):
        explain(decoder, [VOCAB])


def test_a_conversation_ends_with_its_last_message():
    fast = tokenizer(chat=True)
    decoder = Decoder(c.build("llama"), fast)
    talk = [
        {"role": "user", "content": "Paris"},
        {"role": "assistant", "content": "is"},
    ]
    ids = decoder.encode(talk, chat=True)
    assert ids == fast.apply_chat_template(talk, tokenize=True)["input_ids"]
    assert fast.decode(ids).endswith("is<|im_end|>")


def test_of_two_likely_labels_the_baseline_is_not_warned_about():
    result = explain(Decoder(c.build("llama")), IDS)
    assert result.baseline[0] > 0.05
    assert not any("baseline already gives" in text for text in result.warnings)


@pytest.mark.parametrize("ending", ["json", "safetensors"])
def test_files_say_what_fidelity_is_measured_in(ending, tmp_path):
    result = explain(Decoder(c.build("llama", 1)), IDS)
    result.save(tmp_path / f"reward.{ending}")
    again = Attribution.load(tmp_path / f"reward.{ending}")
    assert again.readout == result.readout
    assert again.readout.measure == "logit"
    assert "largest difference from its own logits" in str(again)
    assert "raw logits" in str(again)


def test_a_checkpoint_is_loaded_with_its_head(tmp_path):
    model = c.build("qwen3")
    model.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    decoder = Decoder.from_pretrained(tmp_path)
    assert type(decoder.model) is type(model)
    result = explain(decoder, TEXT, target="POSITIVE")
    p = own_logits(model, decoder.encode(TEXT)).softmax(-1)[1]
    assert result.final[0] == pytest.approx(float(p), abs=1e-6)


def test_a_hook_on_the_norm_is_part_of_the_reading():
    model = c.build("llama", 1)
    norm = part(model, "model.norm")
    handle = norm.register_forward_hook(lambda *given: given[-1] * 0.5)
    decoder = Decoder(model)
    result = explain(decoder, IDS)
    np.testing.assert_allclose(result.final, own_logits(model, IDS), atol=1e-5)
    handle.remove()


@pytest.mark.parametrize("pad", [0, 5, None])
def test_vectors_are_never_read_on_padding(pad):
    runner = as_it_answers(Runner(c.build("llama", pad_token_id=pad)))
    assert runner.dummies(3).shape == (3, 1)
    assert pad not in runner.dummies(3).flatten().tolist()
