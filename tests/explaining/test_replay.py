"""A saved result run again: identical, within noise, changed, or refused."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from families import TEXT, build, tokenizer

import iglens
from iglens import ArgumentError, Attribution, Decoder, ModelLoadError, Scalar, explain
from iglens.explaining import corpus_mean, replay
from iglens.explaining.recorded import recorded_model
from iglens.readout.lens import AffineLens, LensInfo
from iglens.readout.unembedding import unembedding_sha256


@pytest.fixture(scope="module")
def decoder(tiny_folder):
    return Decoder.from_pretrained(tiny_folder)


@pytest.fixture
def folder(tmp_path):
    """A checkpoint that a test may change."""
    build("llama").save_pretrained(tmp_path / "model")
    tokenizer(chat=True).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def saved(result, tmp_path, end="safetensors"):
    result.save(tmp_path / f"result.{end}")
    return Attribution.load(tmp_path / f"result.{end}")


@pytest.mark.parametrize("end", ["safetensors", "json"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"target": [5, 7]},
        {"target": ["@entropy", "@kl"], "diagnostics": False},
        {"answer": [3, 1, 4], "unit": "log_probability", "contrast": "@rival"},
        {"positions": "all", "max_new_tokens": 2, "chat": True, "system": "be brief"},
        {"target": 5, "estimator": "gradient", "n_steps": 4, "rule": "gauss-legendre"},
        {"target": 5, "baseline": ["zero", "embedding"], "unit": "log_odds"},
        {"target": 5, "baseline": "prompt:" + "a b c " * 9, "layers": [1, 2]},
        {"target": 5, "precision": torch.float64, "layers": "::2"},
    ],
    ids=str,
)
def test_what_was_saved_comes_out_again_bit_for_bit(decoder, tmp_path, options, end):
    result = explain(decoder, TEXT, **options)
    found = replay(saved(result, tmp_path, end), decoder)
    assert found.verdict == "identical"
    assert found.changed_facts == ()
    for name in ("rank", "token_ids", "positions"):
        np.testing.assert_array_equal(getattr(found.now, name), getattr(result, name))
    assert found.now.targets == result.targets
    assert found.now.segments == result.segments
    before, after = (r.provenance.settings for r in (result, found.now))
    assert {**after, "layers": None} == {**before, "layers": None}


def test_the_model_is_loaded_as_it_was(tiny_folder, tmp_path):
    loaded = Decoder.from_pretrained(
        tiny_folder, dtype="float64", attn_implementation="eager"
    )
    result = saved(explain(loaded, TEXT, target=5), tmp_path)
    found = replay(result)
    assert found.verdict == "identical"
    assert "Same model, weights, versions and settings." in str(found)
    assert found.now.provenance.model == result.provenance.model
    assert found.now.provenance.settings["attn_implementation"] == "eager"
    assert found.now.provenance.model.dtype == "float64"


def test_the_text_is_not_read_again(decoder, tmp_path):
    result = explain(decoder, TEXT, target=5)
    lie = replace(result.provenance, prompt="something else")
    found = replay(saved(replace(result, provenance=lie), tmp_path), decoder)
    assert found.verdict == "identical"
    assert found.now.provenance.prompt == "something else"


@pytest.mark.parametrize("by", [1.01, 2.0])
def test_moved_weights_are_seen(folder, tmp_path, by):
    result = saved(explain(Decoder.from_pretrained(folder), TEXT, target=5), tmp_path)
    model = build("llama")
    with torch.no_grad():
        model.model.layers[2].mlp.down_proj.weight *= by
    model.save_pretrained(folder)
    found = replay(result)
    assert found.verdict == "changed"
    assert not found.is_reproduced
    assert [fact.name for fact in found.changed_facts] == ["weights_sha256"]
    assert found.largest.layer == 3
    assert found.moved[0, :3].tolist() == [0.0, 0.0, 0.0]


def test_other_weights_that_give_the_same_are_told_all_the_same(folder, tmp_path):
    result = saved(explain(Decoder.from_pretrained(folder), TEXT, target=5), tmp_path)
    model = build("llama")
    with torch.no_grad():
        model.model.embed_tokens.weight[96] += 1  # a token the text does not have
    assert 96 not in result.token_ids
    model.save_pretrained(folder)
    found = replay(result)
    assert found.verdict == "identical"
    assert [fact.name for fact in found.changed_facts] == ["weights_sha256"]
    assert "weights_sha256:" in str(found)


def test_rounding_is_within_the_noise_floor(decoder, tmp_path):
    result = saved(explain(decoder, TEXT, max_new_tokens=3), tmp_path)
    low = Decoder(copy.deepcopy(decoder.model).bfloat16(), decoder.tokenizer)
    found = replay(result, low)
    assert found.verdict == "within noise"
    assert ("dtype", "float32", "bfloat16") in [
        (fact.name, fact.then, fact.now) for fact in found.changed_facts
    ]
    fine = replay(result, Decoder(copy.deepcopy(decoder.model).double()))
    assert fine.verdict == "within noise"
    assert 0 < fine.moved.max() < 1e-5


def test_rows_in_any_order_are_compared_with_themselves(decoder, tmp_path):
    result = explain(decoder, TEXT, max_new_tokens=4).select([3, 1, 2])
    found = replay(saved(result, tmp_path), decoder)
    assert found.verdict in ("identical", "within noise")
    assert found.moved.max() < 1e-12


def test_a_coarsened_result_is_run_along_the_coarse_path(decoder, tmp_path):
    result = explain(decoder, TEXT, target=5).coarsen([2])
    found = replay(saved(result, tmp_path), decoder)
    assert found.is_reproduced
    assert found.now.layers == (2, 3)


@pytest.mark.parametrize("layers", ["all", [2], [1, 3]])
def test_the_papers_mean_stays_that_of_the_lowest_layer_of_the_run(
    decoder, tmp_path, layers
):
    result = explain(decoder, TEXT, target=5, baseline="paper-mean", layers=layers)
    for kept in (result, result.coarsen([3])):
        found = replay(saved(kept, tmp_path), decoder)
        assert found.moved.max() < 1e-12, kept.layers


def test_a_lens_is_found_by_its_file(decoder, tmp_path):
    generator = torch.Generator().manual_seed(0)
    info = LensInfo(decoder.info, unembedding_sha256(decoder.readout), "ridge")
    lens = AffineLens(
        "ridge",
        decoder.n_layers,
        (0, 1, 2),
        torch.randn(3, 32, 32, generator=generator) / 9,
        torch.zeros(3, 32),
        info,
    )
    lens.save(tmp_path / "lens.safetensors")
    file = explain(decoder, TEXT, target=5, lens=tmp_path / "lens.safetensors")
    given = explain(decoder, TEXT, target=5, lens=lens)
    found = replay(saved(file, tmp_path), decoder)
    assert found.verdict == "identical"
    with pytest.raises(ArgumentError, match="Pass it as `lens`"):
        replay(saved(given, tmp_path), decoder)
    assert replay(saved(given, tmp_path), decoder, lens=lens).verdict == "identical"
    replace(lens, weight=lens.weight * 1.5).save(tmp_path / "lens.safetensors")
    changed = replay(saved(file, tmp_path), decoder)
    assert changed.verdict == "changed"
    assert "lens_sha256" in [fact.name for fact in changed.changed_facts]


def test_a_corpus_mean_is_found_by_its_file(decoder, tmp_path, monkeypatch):
    mean = corpus_mean(decoder, [TEXT, "a dog sat on the mat"])
    mean.save(tmp_path / "mean.json")
    monkeypatch.chdir(tmp_path)
    result = explain(decoder, TEXT, target=5, baseline="corpus:mean.json")
    monkeypatch.chdir("/")
    assert replay(saved(result, tmp_path), decoder).verdict == "identical"
    given = saved(explain(decoder, TEXT, target=5, baseline=mean), tmp_path)
    with pytest.raises(ArgumentError, match="Pass the same one as `baseline`"):
        replay(given, decoder)
    assert replay(given, decoder, baseline=mean).verdict == "identical"


def test_a_vector_must_be_passed_again(decoder, tmp_path):
    vector = np.linspace(-1, 1, 32).astype(np.float32)
    result = saved(explain(decoder, TEXT, target=5, baseline=vector), tmp_path)
    with pytest.raises(ArgumentError, match=r"\(vector\) that it does not hold"):
        replay(result, decoder)
    assert replay(result, decoder, baseline=vector).verdict == "identical"


def test_a_scalar_of_the_users_own_must_be_passed_again(decoder, tmp_path):
    own = Scalar("spread", lambda z: z.std(-1), unit="logits")
    result = saved(explain(decoder, TEXT, target=[5, own]), tmp_path)
    with pytest.raises(ArgumentError, match=r"'spread'.*no file holds"):
        replay(result, decoder)
    assert replay(result.select([0]), decoder).verdict == "identical"
    assert replay(result, decoder, scalars=[own]).verdict == "identical"


def test_an_estimator_of_the_users_own_cannot_be_run_again(decoder, tmp_path):
    result = explain(decoder, TEXT, target=5)
    odd = replace(result, estimator="gradient(simpson, n_steps=4)")
    with pytest.raises(ArgumentError, match="simpson"):
        replay(saved(odd, tmp_path), decoder)


@pytest.mark.parametrize("by", ["sublayer", "head", "neuron", "source"])
@pytest.mark.parametrize("extension", ["safetensors", "json"])
def test_results_below_the_layer_are_run_again_with_all_their_parts(
    decoder, tmp_path, by, extension
):
    file = tmp_path / f"x.{extension}"
    explain(decoder, TEXT, target=[5, 7], by=by, top=2, layers="2:").save(file)
    result = Attribution.load(file)
    found = replay(result, decoder)
    assert found.verdict == "identical"
    assert (found.parts_moved is None) == (by == "sublayer")
    assert any(segment.is_part for segment in found.now.segments)


@pytest.mark.parametrize("by", ["head", "neuron", "source"])
def test_some_rows_of_a_result_are_run_again_with_their_parts(decoder, by):
    result = explain(decoder, TEXT, answer=[3, 1, 4, 1, 5], by=by, top=2)
    found = replay(result.select([2, 1]), decoder)
    assert found.is_reproduced
    assert np.isfinite(found.parts_moved).all()


def test_a_source_that_is_lost_is_noticed(decoder):
    result = explain(decoder, TEXT, target=5, by="source")
    sources = result.components.sources.copy()
    sources[0, np.abs(result.components.credits[0]).argmax()] += 100
    inside = replace(result.components, sources=sources)
    assert replay(replace(result, components=inside), decoder).verdict == "changed"


def test_a_part_of_a_saved_result_that_moved_is_noticed(decoder):
    result = explain(decoder, TEXT, target=5, by="head")
    credits = result.components.credits.copy()
    credits[0, :2] += 0.25, -0.25  # no sum, and so no level, tells
    inside = replace(result.components, credits=credits)
    found = replay(replace(result, components=inside), decoder)
    assert found.verdict == "changed"
    assert found.parts_moved.max() == pytest.approx(0.25, abs=1e-6)


def test_directions_of_the_users_own_cannot_be_run_again(decoder):
    result = explain(decoder, TEXT, target=5, by="head")
    inside = replace(result.components, by="direction")
    with pytest.raises(ArgumentError, match="directions of your own"):
        replay(replace(result, components=inside), decoder)


def test_a_model_that_was_handed_over_cannot_be_found(tmp_path):
    handed = Decoder(build("llama"))
    result = saved(explain(handed, [3, 1, 4], target=5), tmp_path)
    with pytest.raises(ArgumentError, match="Pass `decoder`"):
        replay(result)
    found = replay(result, handed)
    assert found.verdict == "identical"
    assert "whether the weights are the same is not known" in str(found)


def test_a_model_of_another_depth_is_refused(decoder, tmp_path):
    result = saved(explain(decoder, TEXT, target=5), tmp_path)
    with pytest.raises(ArgumentError, match="layers"):
        replay(result, Decoder(build("llama of one layer")))


def test_a_model_that_is_gone_is_said_to_be(folder, tmp_path):
    result = saved(explain(Decoder.from_pretrained(folder), TEXT, target=5), tmp_path)
    folder.rename(tmp_path / "moved")
    with pytest.raises(ModelLoadError, match="no model"):
        replay(result)
    assert replay(result, Decoder.from_pretrained(tmp_path / "moved")).is_reproduced


def test_what_was_let_through_is_let_through_again(decoder, tmp_path):
    trace = decoder.trace(decoder.encode(TEXT), [3])
    bare = iglens.attribute(trace.with_states(trace.states), strict=False)
    assert {flag.kind for flag in bare.flags} == {"unverified"}
    assert replay(saved(bare, tmp_path), decoder).verdict == "changed"


def test_what_was_not_certified_is_let_through_again(decoder, tmp_path, monkeypatch):
    from iglens.attribution import shared, strokes

    monkeypatch.setattr(shared, "TOLERANCE", 1e-30)
    monkeypatch.setattr(strokes, "TOLERANCE", 1e-30)
    loose = explain(decoder, TEXT, target=5, by="head", strict=False)
    assert {flag.kind for flag in loose.flags} == {"uncertified"}
    assert replay(saved(loose, tmp_path), decoder).verdict == "identical"


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"id": "smollm2", "path": "/c/smollm2"}, ("smollm2", None)),
        (
            {"id": "org/name", "path": "/hub/snapshots/abc", "revision": "abc"},
            ("org/name", "abc"),
        ),
        ({"id": "org/name", "path": None, "revision": "abc"}, ("org/name", "abc")),
        ({"id": "models/x", "path": "/home/x"}, ("/home/x", None)),
        ({"id": "q/x.Q4.gguf", "path": "/data/q"}, ("/data/q/x.Q4.gguf", None)),
    ],
    ids=str,
)
def test_what_to_load_follows_from_what_is_recorded(decoder, info, expected):
    result = explain(decoder, TEXT, target=5)
    model = replace(result.provenance.model, **{"revision": None, **info})
    result = replace(result, provenance=replace(result.provenance, model=model))
    found = recorded_model(result)
    assert (found.name, found.revision) == expected
    assert (found.dtype, found.attn_implementation) == ("float32", "sdpa")


@pytest.mark.embedded
def test_the_embedded_model_says_the_same_again(embedded, tmp_path):
    result = explain(embedded, "The capital of France is", target=" Paris")
    found = replay(saved(result, tmp_path, "json"), embedded)
    assert found.verdict == "identical"
    assert found.largest.change == 0
    assert recorded_model(result).name == "smollm2"
