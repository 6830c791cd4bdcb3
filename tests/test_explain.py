import json
import re
from importlib.resources import files

import numpy as np
import pytest
import torch
from factories import assert_same
from families import (
    CONTEXT,
    FAMILIES,
    LAYERS,
    TEXT,
    VOCAB,
    Handmade,
    build,
    full_logits,
    logits_of_replaced,
    oracle,
    some_ids,
    states_by_hooks,
    tokenizer,
    total_variation,
)
from isolated import run_python
from jsonschema import Draft202012Validator

from iglens import (
    ArgumentError,
    ArgumentTypeError,
    Attribution,
    Decoder,
    FidelityError,
    Gradient,
    NonFiniteError,
    Sampling,
    Target,
    TargetError,
    explain,
)
from iglens.model.loading.embedded import cached_path

SCHEMA = json.loads((files("iglens.data") / "attribution.schema.json").read_text())


@pytest.fixture(scope="module")
def decoder():
    model = build("llama")
    model.generation_config.eos_token_id = None
    return Decoder(model, tokenizer(chat=True))


@pytest.fixture(scope="module")
def prompt(decoder):
    return decoder.encode(TEXT)


def own(decoder, ids):
    """The model's probabilities after every token."""
    return full_logits(decoder.model, list(ids)).double().softmax(-1)


def of_text(decoder, ids, positions):
    """The model's probability of the text's own tokens."""
    probabilities = own(decoder, ids)
    return [float(probabilities[i - 1, ids[i]]) for i in positions]


def test_by_default_every_generated_token_is_explained(decoder, prompt):
    result = explain(decoder, TEXT)
    assert isinstance(result, Attribution)
    said = decoder.generate(prompt, 8)
    assert result.token_ids.tolist() == prompt + said
    assert result.positions.tolist() == [*range(5, 13)]
    assert [target.ids for target in result.targets] == [(token,) for token in said]
    assert result.final == pytest.approx(
        of_text(decoder, prompt + said, range(5, 13)), abs=1e-6
    )
    assert result.top1[:, -1].all()
    assert result.layers == (1, 2, 3)
    assert (result.unit, result.baseline_kind) == ("probability", "embedding")
    assert (result.estimator, result.lens) == ("observed", "logit")
    assert result.provenance.prompt == TEXT
    assert result.provenance.settings["prompt_tokens"] == 5


def test_credits_add_up_to_the_models_probability(decoder, prompt):
    result = explain(decoder, TEXT)
    ids = result.token_ids.tolist()
    total = result.baseline + result.credits.sum(1)
    np.testing.assert_allclose(total, of_text(decoder, ids, range(5, 13)), atol=1e-6)
    np.testing.assert_allclose(result.credits, np.diff(result.levels), atol=1e-15)


def test_levels_are_those_of_norm_and_head_at_every_layer(decoder, prompt):
    result = explain(decoder, TEXT, target=" Paris", precision=torch.float64)
    states = states_by_hooks(decoder.model, "llama", prompt)[:, -1]
    truth = oracle(decoder.model, "llama", states)[:, decoder.target(" Paris").ids[0]]
    np.testing.assert_allclose(result.levels[0], truth, rtol=1e-9)


def test_a_target_is_the_next_token_and_nothing_is_generated(decoder, prompt):
    result = explain(decoder, TEXT, target=" Paris")
    paris = decoder.target(" Paris").ids[0]
    assert result.token_ids.tolist() == prompt
    assert result.positions.tolist() == [5]
    assert result.final == pytest.approx([float(own(decoder, prompt)[-1, paris])])
    assert result.targets == (Target((paris,), " Paris"),)


def test_a_model_that_cannot_generate_is_never_asked_to_for_a_target():
    result = explain(Decoder(Handmade()), [3, 4], target=5)
    assert result.targets[0].ids == (5,)


def test_targets_are_texts_ids_sets_or_resolved(decoder, prompt):
    paris, rome = (decoder.target(text).ids[0] for text in (" Paris", " Rome"))
    given = [" Paris", rome, " Paris| Rome", Target((rome, paris), "either")]
    result = explain(decoder, TEXT, target=given)
    both = {paris, rome}
    assert [set(t.ids) for t in result.targets] == [{paris}, {rome}, both, both]
    assert [t.text for t in result.targets][2:] == [" Paris| Rome", "either"]
    assert result.levels[2] == pytest.approx(result.levels[0] + result.levels[1])
    assert result.levels[3] == pytest.approx(result.levels[2])
    assert result.positions.tolist() == [5] * 4


def test_a_target_is_explained_at_every_position_that_is_named(decoder, prompt):
    paris = decoder.target(" Paris").ids[0]
    result = explain(decoder, TEXT, target=" Paris", positions="prompt")
    assert result.positions.tolist() == [1, 2, 3, 4]
    expected = own(decoder, prompt)[:4, paris].tolist()
    assert result.final == pytest.approx(expected, abs=1e-6)
    result = explain(decoder, TEXT, target=[" Paris", " Rome"], positions=[2, 5])
    assert result.positions.tolist() == [2, 2, 5, 5]


def test_an_answer_is_explained_instead_of_a_continuation(decoder, prompt):
    result = explain(decoder, TEXT, answer=" Paris of")
    answer = decoder.encode(" Paris of")
    assert result.token_ids.tolist() == prompt + answer
    assert result.positions.tolist() == [5, 6]
    assert result.final == pytest.approx(
        of_text(decoder, prompt + answer, [5, 6]), abs=1e-6
    )
    in_ids = explain(decoder, prompt, answer=answer)
    np.testing.assert_array_equal(in_ids.levels, result.levels)
    assert in_ids.provenance.prompt is None


def test_an_answer_that_the_model_would_say_is_explained_alike(decoder, prompt):
    said = decoder.generate(prompt, 4)
    generated = explain(decoder, TEXT, max_new_tokens=4)
    given = explain(decoder, TEXT, answer=said)
    np.testing.assert_array_equal(generated.levels, given.levels)


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ("answer", [5, 6]),
        ("prompt", [1, 2, 3, 4]),
        ("all", [1, 2, 3, 4, 5, 6]),
        (":3", [1, 2]),
        ("2:5", [2, 3, 4]),
        ("-2:", [5, 6]),
        ("::3", [3, 6]),
        ([6, 2], [2, 6]),
        ((4,), [4]),
    ],
)
def test_positions_are_named_sliced_or_listed(decoder, positions, expected):
    result = explain(decoder, TEXT, answer=" Paris of", positions=positions)
    assert result.positions.tolist() == expected
    ids = result.token_ids.tolist()
    assert [target.ids[0] for target in result.targets] == [ids[i] for i in expected]
    assert result.final == pytest.approx(of_text(decoder, ids, expected), abs=1e-6)


def test_a_given_text_is_mapped_without_generating(decoder):
    result = explain(decoder, some_ids(), positions="all", max_new_tokens=0)
    assert result.token_ids.tolist() == some_ids()
    assert result.positions.tolist() == [*range(1, 9)]


def test_prompt_positions_and_slices_generate_nothing(decoder, prompt):
    for positions in ("prompt", "1:4", [2]):
        result = explain(decoder, TEXT, positions=positions)
        assert result.token_ids.tolist() == prompt


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("all", (1, 2, 3)),
        ("2", (2, 3)),
        ("1,3", (1, 3)),
        ("::2", (2, 3)),
        ("1:", (1, 2, 3)),
        (":2", (1, 3)),
        ([1], (1, 3)),
        ([], (3,)),
        ((3, 2, 2), (2, 3)),
    ],
)
def test_layers_are_listed_sliced_or_all(decoder, layers, expected):
    result = explain(decoder, TEXT, target=" Paris", layers=layers)
    assert result.layers == expected
    whole = explain(decoder, TEXT, target=" Paris")
    points = [0, *expected]
    np.testing.assert_allclose(result.levels, whole.levels[:, points], atol=1e-7)
    assert_same_but_time(whole.coarsen(expected), result)


def assert_same_but_time(one, other):
    np.testing.assert_allclose(one.credits, other.credits, atol=1e-7)
    assert one.segments == other.segments
    assert one.targets == other.targets


def test_units_are_one_level_in_three_forms(decoder):
    def levels(unit):
        result = explain(decoder, TEXT, target=[" Paris", " Rome| Paris"], unit=unit)
        assert result.unit == unit
        np.testing.assert_allclose(result.completeness, 0, atol=1e-12)
        return result.levels

    probability = levels("probability")
    np.testing.assert_allclose(np.exp(levels("log_probability")), probability)
    np.testing.assert_allclose(1 / (1 + np.exp(-levels("log_odds"))), probability)


@pytest.mark.parametrize("baseline", ["zero", "mean", "paper-mean", "vector", "array"])
def test_another_baseline_changes_the_start_and_not_the_total(decoder, baseline):
    vectors = {"vector": torch.ones(32), "array": np.ones(32, dtype=np.float32)}
    start = vectors.get(baseline, baseline)
    result = explain(decoder, TEXT, target=" Paris", baseline=start)
    plain = explain(decoder, TEXT, target=" Paris")
    assert result.final == pytest.approx(plain.final)
    assert result.baseline != pytest.approx(plain.baseline)
    np.testing.assert_allclose(result.completeness, 0, atol=1e-12)
    if baseline != "paper-mean":
        np.testing.assert_allclose(result.credits[:, 1:], plain.credits, atol=1e-9)


def test_the_gradient_estimator_comes_near_and_says_how_near(decoder):
    exact = explain(decoder, TEXT, target=" Paris")
    named = explain(decoder, TEXT, target=" Paris", estimator="gradient", n_steps=256)
    given = explain(decoder, TEXT, target=" Paris", estimator=Gradient(256, "midpoint"))
    np.testing.assert_allclose(named.credits, exact.credits, atol=1e-4)
    np.testing.assert_array_equal(named.credits, given.credits)
    assert np.abs(named.completeness).max() > 1e-12
    assert named.estimator == "gradient(midpoint, n_steps=256)"


def test_sampling_repeats_with_its_seed(decoder):
    first = explain(decoder, TEXT, sampling=Sampling(seed=3))
    again = explain(decoder, TEXT, sampling=Sampling(seed=3))
    assert first.token_ids.tolist() == again.token_ids.tolist()
    assert first.token_ids.tolist() != explain(decoder, TEXT).token_ids.tolist()
    recorded = {"temperature": 1.0, "top_p": 1.0, "seed": 3}
    assert first.provenance.settings["sampling"] == recorded


def test_a_chat_is_explained_through_the_template(decoder):
    result = explain(decoder, "is", chat=True, system="of", max_new_tokens=1)
    shown = "".join(result.token_texts[:-1])
    assert shown == (
        "<|im_start|>system:of<|im_end|><|im_start|>user:is<|im_end|>"
        "<|im_start|>assistant:"
    )
    settings = result.provenance.settings
    assert (settings["chat"], settings["system"]) == (True, "of")


def test_special_tokens_can_be_left_out():
    made = Decoder(build("llama"), tokenizer(bos=True))
    with_bos = explain(made, TEXT, target=" Paris")
    without = explain(made, TEXT, target=" Paris", special_tokens=False)
    assert with_bos.token_ids.tolist() == [1, *without.token_ids.tolist()]


def test_diagnostics_are_read_up_to_64_rows(decoder):
    ids = some_ids(CONTEXT)
    few = explain(decoder, ids, positions=[*range(1, 64)], max_new_tokens=0)
    assert few.top_ids.shape == (63, 4, 5)
    assert few.rank.min() >= 1
    assert np.isfinite(few.lens_kl).all()
    last = own(decoder, ids)[:63].topk(5)
    np.testing.assert_array_equal(few.top_ids[:, -1], last.indices)
    exactly = explain(decoder, ids[:2], target=[*range(64)])
    assert exactly.top_ids.shape[2] == 5
    beyond = explain(decoder, ids[:2], target=[*range(65)])
    assert beyond.top_ids.shape == (65, 4, 0)
    assert not beyond.rank.any()
    assert np.isnan(beyond.lens_kl).all()
    asked = explain(decoder, ids[:2], target=[*range(65)], diagnostics=True)
    assert asked.top_ids.shape[2] == 5
    off = explain(decoder, ids[:2], target=5, diagnostics=False)
    assert off.top_ids.shape[2] == 0
    np.testing.assert_array_equal(asked.levels, beyond.levels)


IMPOSSIBLE = {
    "`target` .next token. or `answer` .text., not both": {"target": 5, "answer": [5]},
    "`max_new_tokens` is -1": {"max_new_tokens": -1},
    "`positions` 'answer' leaves nothing": {"max_new_tokens": 0},
    "`positions` is 'first'": {"positions": "first"},
    "`positions` is '1:2:3:4'": {"positions": "1:2:3:4"},
    "`positions` is '::0'": {"positions": "::0"},
    "`positions` '9:' leaves nothing": {"positions": "9:"},
    "`positions` is empty": {"positions": []},
    "`positions` names 0": {"positions": [0, 2]},
    "`positions` names 9": {"positions": [9]},
    "`layers` is ''": {"layers": ""},
    "`layers` is '1,x'": {"layers": "1,x"},
    "`layers` is '::0'": {"layers": "::0"},
    "`layers` '7:' chooses none": {"layers": "7:"},
    "`layers` names .4.": {"layers": [4]},
    "`layers` names .-1.": {"layers": "-1"},
    "`baseline` is 'corpus'": {"baseline": "corpus"},
    "`baseline` has shape .3": {"baseline": np.ones(3)},
    "`estimator` is 'exact'": {"estimator": "exact"},
    "`n_steps` is 0": {"estimator": "gradient", "n_steps": 0},
    "`target` is empty": {"target": []},
    "`answer` is empty": {"answer": ""},
    "`system` needs `chat": {"system": "of"},
    "needs 65 tokens": {"max_new_tokens": 60},
}


@pytest.mark.parametrize("reason", IMPOSSIBLE)
def test_impossible_arguments_are_refused_by_name(decoder, reason):
    with pytest.raises(ArgumentError, match=reason):
        explain(decoder, TEXT, **IMPOSSIBLE[reason])


def test_a_position_after_the_text_needs_a_target(decoder):
    with pytest.raises(TargetError, match="pass `targets`"):
        explain(decoder, TEXT, positions=[5])
    assert explain(decoder, TEXT, positions=[5], target=3).n_rows == 1


def test_a_target_of_several_tokens_is_refused_with_its_pieces(decoder):
    with pytest.raises(TargetError, match=r"\[' Paris', ' of'\]"):
        explain(decoder, TEXT, target=" Paris of")


def test_bools_are_no_numbers(decoder):
    for arguments in ({"positions": [True]}, {"layers": [True]}, {"target": True}):
        with pytest.raises(ArgumentTypeError, match="whole numbers"):
            explain(decoder, TEXT, **arguments)


@pytest.mark.slow
def test_wrong_kinds_are_refused_in_a_sentence():
    """Without the type checks of the test run, as a user has it."""
    run_python(
        "import numpy as np\n"
        "from families import build\n"
        "from iglens import Decoder, IGLensError, explain\n"
        "decoder = Decoder(build('llama'))\n"
        "cases = [{'unit': 'bits'}, {'rule': 'simpson', 'estimator': 'gradient'},\n"
        "    {'positions': [1.5]}, {'layers': ['1']}, {'baseline': 3}]\n"
        "for case in cases:\n"
        "    try:\n"
        "        explain(decoder, [3, 4, 5], max_new_tokens=1, **case)\n"
        "    except IGLensError as error:\n"
        "        assert '`' + next(iter(case)) + '`' in str(error), str(error)\n"
        "    else:\n"
        "        raise AssertionError(case)\n"
        "found = explain(decoder, [3, 4, 5], positions=np.array([1, 2]))\n"
        "assert found.positions.tolist() == [1, 2]\n"
    )


def test_a_state_that_is_not_a_number_is_refused_or_flagged():
    model = build("llama")
    decoder = Decoder(model)
    whole = {"positions": "all", "max_new_tokens": 0}
    assert explain(decoder, some_ids(4), **whole).flags == ()

    def spoil(module, args, output):
        return output.index_fill(1, torch.tensor([1]), torch.nan)

    model.model.layers[-1].register_forward_hook(spoil)
    with pytest.raises(NonFiniteError, match="layer 3 that predicts position 2"):
        explain(decoder, some_ids(4), **whole)
    result = explain(decoder, some_ids(4), **whole, strict=False)
    assert {flag.row for flag in result.flags} == {1}
    assert np.isfinite(result.credits[[0, 2]]).all()
    assert np.isfinite(result.credits[1, :-1]).all()
    assert np.isnan(result.credits[1, -1])


def test_a_token_whose_weights_are_not_numbers_is_noticed_when_it_comes():
    """Loading cannot see it: no text it runs has that token."""
    model = build("llama")
    with torch.no_grad():
        model.model.embed_tokens.weight[50] = torch.nan
    decoder = Decoder(model)
    assert explain(decoder, [5, 6, 7], target=3).flags == ()
    with pytest.raises(NonFiniteError, match="layer 0 that predicts position 3"):
        explain(decoder, [5, 6, 50], target=3)


def damaged(decoder):
    """A decoder whose model is no longer the one that was verified."""
    decoder.model.model.norm = torch.nn.Identity()
    return decoder


def test_an_unfaithful_readout_is_refused_or_flagged():
    decoder = damaged(Decoder(build("llama")))
    with pytest.raises(FidelityError, match="already carries the final norm"):
        explain(decoder, some_ids(), positions="all", max_new_tokens=0)
    result = explain(
        decoder, some_ids(), positions="all", max_new_tokens=0, strict=False
    )
    assert {flag.kind for flag in result.flags} == {"unfaithful"}
    assert result.fidelity.min() > 0.01


@pytest.mark.parametrize("form", ["json", "safetensors"])
def test_a_result_survives_its_file(decoder, tmp_path, form):
    result = explain(decoder, TEXT, answer=" Paris of", unit="log_odds")
    result.save(tmp_path / f"result.{form}")
    again = Attribution.load(tmp_path / f"result.{form}")
    assert_same(again, result)
    assert again.depths == result.depths
    assert str(again) == str(result)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_result_can_be_written_as_a_table(decoder, tmp_path, form):
    result = explain(decoder, TEXT, answer=" Paris of")
    result.save(tmp_path / f"result.{form}")
    assert (tmp_path / f"result.{form}").stat().st_size > 100
    frame = result.to_pandas()
    assert len(frame) == 2 * LAYERS
    total = (
        frame.groupby("row")["credit"].sum() + frame.groupby("row")["baseline"].max()
    )
    assert total.tolist() == pytest.approx(result.final.tolist())


@pytest.mark.parametrize("name", FAMILIES)
def test_the_json_of_every_family_fits_the_schema(name):
    decoder = Decoder(build(name), tokenizer())
    result = explain(decoder, TEXT, max_new_tokens=2)
    content = json.loads(json.dumps(result.to_json(), allow_nan=False))
    Draft202012Validator(SCHEMA).validate(content)
    assert content["readout"]["kind"] == "explicit"
    assert content["model"]["n_layers"] == FAMILIES[name].layers
    assert content["model"]["vocab_size"] == VOCAB


def test_a_result_can_be_shown(decoder):
    result = explain(decoder, TEXT, target=" Paris")
    assert "' Paris'" in str(result)
    assert "<table" in result._repr_html_()


def test_the_injected_readout_explains_like_the_explicit_one():
    plain, hooked = build("neox"), build("neox")
    with torch.no_grad():
        plain.lm_head.weight.mul_(1.5)
    hooked.lm_head.register_forward_pre_hook(lambda module, args: (args[0] * 1.5,))
    found = [Decoder(model, tokenizer()) for model in (plain, hooked)]
    assert [decoder.readout.kind for decoder in found] == ["explicit", "injected"]
    for options in ({}, {"estimator": "gradient", "n_steps": 16}):
        explicit, injected = (
            explain(d, TEXT, answer=" Paris", **options) for d in found
        )
        np.testing.assert_allclose(injected.levels, explicit.levels, atol=1e-6)
        np.testing.assert_allclose(injected.credits, explicit.credits, atol=1e-5)
        np.testing.assert_array_equal(injected.rank, explicit.rank)
        np.testing.assert_allclose(injected.lens_kl, explicit.lens_kl, atol=1e-5)


PARIS = {27: 0.00033, 28: 0.0105, 29: 0.0701, 30: 0.7727}


@pytest.mark.embedded
def test_smollm2_reads_paris_between_the_last_layers(embedded):
    result = explain(embedded, TEXT, target=" Paris")
    assert result.n_rows == 1
    for layer, level in PARIS.items():
        assert result.levels[0, layer] == pytest.approx(level, rel=0.01)
    assert result.credits[0, -1] == pytest.approx(0.7025, abs=2e-3)
    assert result.final[0] == pytest.approx(result.model_value[0], abs=1e-6)
    assert result.fidelity[0] < 1e-4
    assert result.readout.kind == "explicit"
    assert result.readout.power > 1000
    assert result.depths[0].onset_mass.upto == 30


@pytest.mark.embedded
def test_smollm2_continues_and_every_token_is_faithful(embedded):
    result = explain(embedded, TEXT)
    assert result.token_texts[5] == " Paris"
    assert result.positions.tolist()[0] == 5
    assert result.fidelity.max() < 1e-4
    assert np.abs(result.completeness).max() < 1e-12
    assert result.precision_gap.max() < 1e-4
    info = result.provenance.model
    assert (info.id, info.n_layers, info.vocab_size) == ("smollm2", 30, 49152)
    assert info.dtype == "float32"
    assert info.note == "Q4_1 dequantised to float16"
    assert re.fullmatch("[0-9a-f]{64}", info.weights_sha256)


@pytest.mark.embedded
def test_smollm2_is_read_as_plain_hooks_and_modules_read_it(embedded):
    ids = embedded.encode(TEXT)
    trace = embedded.trace(ids, range(1, len(ids) + 1))
    assert torch.equal(trace.states, states_by_hooks(embedded.model, "llama", ids))
    noise = torch.randn(5, 576, generator=torch.Generator().manual_seed(0))
    vectors = noise * trace.states[-1].std()
    truth = logits_of_replaced(embedded.model, "llama", ids, vectors)
    assert total_variation(embedded.readout.logits(vectors), truth) < 1e-4
    assert total_variation(trace.logits, full_logits(embedded.model, ids)) < 1e-4


@pytest.mark.embedded
def test_every_way_through_smollm2_has_the_same_total(embedded):
    whole = explain(embedded, TEXT, target=[" Paris", " the"])
    for layers in ("::4", "29", "1,5,30", "::7"):
        coarse = explain(embedded, TEXT, target=[" Paris", " the"], layers=layers)
        total = coarse.baseline + coarse.credits.sum(1)
        np.testing.assert_allclose(total, whole.final, atol=1e-7)
        np.testing.assert_allclose(
            whole.coarsen(coarse.layers).credits, coarse.credits, atol=1e-6
        )


@pytest.mark.embedded
def test_smollm2_answers_in_its_chat_template(embedded):
    result = explain(embedded, "Hi", chat=True, max_new_tokens=2)
    assert "".join(result.token_texts).startswith("<|im_start|>system\n")
    assert result.fidelity.max() < 1e-4
    assert result.warnings == ()


@pytest.mark.embedded
@pytest.mark.slow
def test_gemma_is_faithful_and_says_the():
    folder = cached_path("gemma3-270m")
    if folder is None:
        pytest.skip("gemma3-270m is fetched only by who accepts its terms")
    gemma = Decoder.from_pretrained("gemma3-270m")
    result = explain(gemma, TEXT, target=" the")
    assert gemma.n_layers == 18
    assert result.final[0] == pytest.approx(0.1917, abs=1e-3)
    assert result.fidelity[0] < 1e-4
    assert result.readout.kind == "explicit"
    ids = gemma.encode(TEXT)
    trace = gemma.trace(ids, [len(ids)])
    expected = states_by_hooks(gemma.model, "gemma3", ids)[:, -1:]
    assert torch.equal(trace.states, expected)
