"""The same question of another prompt or another model, and what differs then."""

import copy
from dataclasses import replace

import classifiers
import numpy as np
import pytest
import torch
from families import LAYERS, build, full_logits, some_ids, tokenizer

from iglens import ArgumentError, Decoder, Scalar, attribute, explain
from iglens.explaining import explain_like, replay
from iglens.records.difference import BETWEEN_DTYPES, diff

CLEAN, CORRUPTED = "the cat sat", "a dog sat on the mat"


@pytest.fixture(scope="module")
def decoder():
    model = build("llama")
    model.generation_config.eos_token_id = None
    return Decoder(model, tokenizer(chat=True))


@pytest.fixture(scope="module")
def other_weights():
    return Decoder(build("llama", seed=5), tokenizer(chat=True))


def own(decoder, ids, position, token):
    """The model's probability of a token, by its plain forward."""
    logits = full_logits(decoder.model, list(ids))[position - 1].double()
    return float(logits.softmax(-1)[token])


def test_the_second_prompt_is_asked_for_what_the_first_one_says(decoder):
    first = explain(decoder, CLEAN, max_new_tokens=3)
    second = explain_like(decoder, CORRUPTED, first)
    clean, corrupted = decoder.encode(CLEAN), decoder.encode(CORRUPTED)
    said = first.token_ids[len(clean) :].tolist()
    assert second.token_ids.tolist() == [*corrupted, *said]
    assert second.targets == first.targets
    found = diff(first, second)
    assert found.n_rows == 3
    assert found.notes == ()
    for row, token in enumerate(said):
        ends = [
            own(decoder, side.token_ids, side.positions[row], token)
            for side in (first, second)
        ]
        assert found.final[row] == pytest.approx(ends[1] - ends[0], abs=1e-5)
        total = found.baseline[row] + found.credits[row].sum()
        assert total == pytest.approx(found.final[row], abs=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"target": [5, 7]},
        {"target": "@entropy"},
        {"answer": [3, 1, 4], "unit": "log_probability"},
        {"contrast": "@rival", "max_new_tokens": 2},
        {"positions": "prompt", "max_new_tokens": 0},
        {"positions": "all", "max_new_tokens": 1, "layers": [2]},
        {"target": 5, "estimator": "gradient", "n_steps": 4, "rule": "trapezoid"},
        {"target": 5, "baseline": ["zero", "mean"]},
        {"target": 5, "baseline": "paper-mean", "layers": [2]},
        {"target": 5, "baseline": "prompt:" + "a b c " * 9},
        {"target": 5, "precision": torch.float64, "diagnostics": False},
    ],
    ids=str,
)
def test_every_row_has_a_counterpart_whatever_was_asked(decoder, options):
    first = explain(decoder, CLEAN, **options)
    second = explain_like(decoder, CORRUPTED, first)
    found = diff(first, second)
    dropped = first.n_rows - found.n_rows
    assert dropped == 0
    assert (found.a.baseline_kind, found.a.estimator) == (
        found.b.baseline_kind,
        found.b.estimator,
    )
    assert second.readout.dtype == first.readout.dtype
    assert second.top_ids.shape[2] == first.top_ids.shape[2]
    again = explain_like(decoder, CLEAN, second)
    np.testing.assert_array_equal(again.levels, first.levels)


def test_rows_that_a_shorter_prompt_has_no_place_for_are_left_out(decoder):
    first = explain(decoder, CORRUPTED, positions="prompt", max_new_tokens=0)
    second = explain_like(decoder, CLEAN, first)
    short, long = (len(decoder.encode(text)) for text in (CLEAN, CORRUPTED))
    assert (first.n_rows, second.n_rows) == (long - 1, short - 1)
    found = diff(first, second)
    assert found.n_rows == short - 1
    assert "left out" in found.notes[0]


def test_a_prompt_of_which_no_row_is_left_is_refused(decoder):
    first = explain(decoder, CORRUPTED, positions=[1], max_new_tokens=0)
    with pytest.raises(ArgumentError, match="none of the rows"):
        explain_like(decoder, CLEAN, first)


def test_the_order_of_rows_is_kept(decoder):
    first = explain(decoder, CLEAN, max_new_tokens=3).select([2, 0, 1, 0])
    second = explain_like(decoder, CLEAN, first)
    np.testing.assert_allclose(second.levels, first.levels, rtol=1e-12)
    assert second.positions.tolist() == first.positions.tolist()


def test_two_models_are_asked_of_the_same_tokens(decoder, other_weights):
    first = explain(decoder, CLEAN, max_new_tokens=2, chat=True, system="be brief")
    second = explain_like(other_weights, None, first)
    assert second.token_ids.tolist() == first.token_ids.tolist()
    assert second.provenance.prompt == CLEAN
    settings = second.provenance.settings
    assert (settings["chat"], settings["system"]) == (True, "be brief")
    found = diff(first, second)
    assert found.beyond_noise.any()
    token, place = int(first.token_ids[-1]), int(first.positions[-1])
    ends = [own(d, first.token_ids, place, token) for d in (decoder, other_weights)]
    assert found.final[-1] == pytest.approx(ends[1] - ends[0], abs=1e-5)


def test_two_dtypes_of_one_model_have_two_noise_floors(decoder):
    low = Decoder(copy.deepcopy(decoder.model).bfloat16(), tokenizer())
    first = explain(decoder, CLEAN, target=5)
    second = explain_like(low, None, first)
    found = diff(first, second)
    assert second.noise_floor[0] > 10 * first.noise_floor[0]
    both = first.noise_floor[0] + second.noise_floor[0]
    assert found.noise_floor[0] == BETWEEN_DTYPES * both
    assert diff(first, first).noise_floor[0] == 2 * first.noise_floor[0]
    assert (found.levels != 0).all()
    assert not found.beyond_noise.any()
    assert "No layer differs beyond rounding" in str(found)


def test_a_model_that_says_the_same_differs_by_nothing(decoder):
    first = explain(decoder, CLEAN, max_new_tokens=2)
    twin = Decoder(copy.deepcopy(decoder.model), decoder.tokenizer)
    found = diff(first, explain_like(twin, None, first))
    assert (found.levels == 0).all()


def test_a_block_that_was_changed_shows_from_its_layer_on(decoder):
    model = copy.deepcopy(decoder.model)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight *= 2
    first = explain(decoder, CLEAN, target=5)
    found = diff(first, explain_like(Decoder(model, decoder.tokenizer), None, first))
    assert found.levels[0, :2].tolist() == [0.0, 0.0]
    assert found.beyond_noise[0].tolist() == [False, True, True]


def test_a_model_of_another_depth_is_refused(decoder):
    first = explain(decoder, CLEAN, target=5)
    shallow = Decoder(build("llama of one layer"), tokenizer())
    with pytest.raises(ArgumentError, match=f"has {LAYERS} layers.* has 1"):
        explain_like(shallow, None, first)


def test_a_model_of_another_vocabulary_is_refused(decoder):
    first = explain(decoder, CLEAN, target=5)
    texts = tuple(f"{text}!" for text in first.token_texts)
    with pytest.raises(ArgumentError, match="one vocabulary"):
        explain_like(decoder, None, replace(first, token_texts=texts))


def test_without_a_tokenizer_ids_are_taken_at_their_word(decoder):
    bare = Decoder(decoder.model)
    first = explain(decoder, CLEAN, max_new_tokens=1)
    found = diff(first, explain_like(bare, None, first))
    assert (found.levels == 0).all()


def test_a_vector_that_nobody_wrote_down_must_be_passed_again(decoder):
    vector = np.linspace(-1, 1, 32).astype(np.float32)
    first = explain(decoder, CLEAN, target=5, baseline=vector)
    with pytest.raises(ArgumentError, match="as `baseline`"):
        explain_like(decoder, CORRUPTED, first)
    second = explain_like(decoder, CLEAN, first, baseline=vector)
    np.testing.assert_array_equal(second.levels, first.levels)


def test_a_scalar_of_the_users_own_must_be_passed_again(decoder):
    mean = Scalar("mean logit", lambda z: z.mean(-1))
    first = explain(decoder, CLEAN, target=[5, mean])
    with pytest.raises(ArgumentError, match="'mean logit'"):
        explain_like(decoder, CORRUPTED, first)
    second = explain_like(decoder, CLEAN, first, scalars=[mean])
    np.testing.assert_array_equal(second.levels, first.levels)


def test_results_of_attribute_are_enough(decoder):
    ids = some_ids()
    trace = decoder.trace(ids, [4, 6])
    first = attribute(trace, baseline="zero", unit="log_odds")
    second = explain_like(decoder, list(reversed(ids)), first)
    assert diff(first, second).n_rows == 2


@pytest.mark.parametrize("by", ["sublayer", "head"])
def test_parts_are_compared_and_what_is_inside_them_is_not(decoder, by):
    first = explain(decoder, CLEAN, target=5, by=by)
    second = explain_like(decoder, CORRUPTED, first)
    assert [s.place for s in second.segments] == [s.place for s in first.segments]
    found = diff(first, second)
    np.testing.assert_array_equal(found.credits, second.credits - first.credits)
    said = [note for note in found.notes if "is not compared" in note]
    assert len(said) == (by == "head")
    with pytest.raises(ArgumentError, match="with attention, mlp in the first"):
        diff(first, explain(decoder, CORRUPTED, target=5))
    layers = diff(first, explain(decoder, CORRUPTED, target=5), layers=[1, 2, 3])
    np.testing.assert_allclose(layers.credits.sum(), found.credits.sum(), atol=1e-9)


@pytest.mark.parametrize(("labels", "unit"), [(2, "probability"), (1, "logit")])
def test_classifiers_and_rewards_are_compared_too(labels, unit):
    judge = Decoder(classifiers.build("llama", labels=labels), tokenizer())
    first = explain(judge, CLEAN)
    found = diff(first, explain_like(judge, CORRUPTED, first))
    assert found.unit == unit
    ids = [judge.encode(text) for text in (CLEAN, CORRUPTED)]
    ends = [classifiers.own_logits(judge.model, one).double() for one in ids]
    if unit == "probability":
        ends = [end.softmax(-1) for end in ends]
    (label,) = first.targets[0].ids
    assert found.final[0] == pytest.approx(float((ends[1] - ends[0])[label]), abs=1e-5)
    assert replay(first, judge).verdict == "identical"


@pytest.mark.embedded
def test_the_corrupted_prompt_loses_paris_in_the_last_layers(embedded):
    clean, corrupted = "The capital of France is", "The capital of Italy is"
    first = explain(embedded, clean, target=[" Paris", " Rome"])
    found = diff(first, explain_like(embedded, corrupted, first))
    assert found.final[0] < -0.7
    assert found.final[1] > 0.3
    assert found.credits[0].argmin() == found.credits[1].argmax() == 29
    assert "between layers 29 and 30" in str(found)
