"""Baselines that take a model, a file or another prompt to know."""

import json

import numpy as np
import pytest
import torch
from families import TEXT, build, states_by_hooks, tokenizer

import iglens
from iglens import explain
from iglens.errors import ArgumentError, ArgumentTypeError, ArtifactError
from iglens.explaining.start import check_start

TEXTS = ["The capital of Italy is Rome", "a b c", "of"]


@pytest.fixture(scope="module")
def decoder():
    return iglens.Decoder(build("llama"), tokenizer())


def embeddings(decoder, text):
    ids = decoder.encode(text)
    return states_by_hooks(decoder.model, "llama", ids)[0].double().numpy()


def test_a_corpus_mean_leaves_the_first_token_of_every_text_out(decoder):
    found = iglens.corpus_mean(decoder, TEXTS)
    states = np.concatenate([embeddings(decoder, text)[1:] for text in TEXTS])
    np.testing.assert_allclose(found.mean, states.mean(0), atol=1e-7)
    assert found.tokens == len(states)


def test_a_corpus_starts_the_path_however_it_is_given(decoder, tmp_path):
    mean = iglens.corpus_mean(decoder, TEXTS)
    mean.save(tmp_path / "mean.json")
    (tmp_path / "texts.txt").write_text("\n\n".join(TEXTS))
    lines = [json.dumps({"text": text}) for text in TEXTS]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines))
    vector = torch.from_numpy(mean.mean).float()
    expected = explain(decoder, TEXT, target=" is", baseline=vector)
    for given in (
        mean,
        f"corpus:{tmp_path / 'mean.json'}",
        f"corpus:{tmp_path / 'texts.txt'}",
        f"corpus:{tmp_path / 'texts.jsonl'}",
    ):
        found = explain(decoder, TEXT, target=" is", baseline=given)
        np.testing.assert_allclose(found.levels, expected.levels, rtol=1e-6)
        assert found.baseline_kind == "corpus"


def test_another_prompt_starts_with_its_embedding_at_the_same_position(decoder):
    other = "A city of Italy is"
    found = explain(decoder, TEXT, positions="prompt", baseline=f"prompt:{other}")
    states = embeddings(decoder, other)[found.positions - 1]
    vectors = torch.from_numpy(states).float()
    expected = explain(decoder, TEXT, positions="prompt", baseline=vectors)
    np.testing.assert_allclose(found.levels, expected.levels, rtol=1e-6)
    assert found.baseline_kind == "prompt"


def test_several_starts_are_averaged(decoder):
    found = explain(decoder, TEXT, target=" is", baseline=["zero", "prompt:" + TEXT])
    zero = explain(decoder, TEXT, target=" is", baseline="zero")
    own = explain(decoder, TEXT, target=" is")
    np.testing.assert_allclose(found.baseline, (zero.baseline + own.baseline) / 2)
    assert found.baseline_kind == "mean of zero, prompt"


@pytest.mark.parametrize(
    ("baseline", "error", "said"),
    [
        ("prompt:of", ArgumentError, "but position 5 is predicted by token 4"),
        ("prompt:", ArgumentError, "empty"),
        ("corpus:nowhere.json", ArtifactError, "nowhere.json cannot be read"),
        ("corpus:nowhere.txt", ArtifactError, "nowhere.txt cannot be read"),
        ("corpse:x", ArgumentError, "known are embedding"),
        ("corpus", ArgumentError, "paper-mean, corpus:FILE, prompt:TEXT, or a vector"),
        ([], ArgumentError, "empty list"),
        (np.zeros(3, np.float32), ArgumentError, "shape"),
    ],
)
def test_what_is_no_baseline_is_refused_in_a_sentence(decoder, baseline, error, said):
    with pytest.raises(error, match=said):
        explain(decoder, TEXT, target=" is", baseline=baseline)


def test_a_number_is_no_baseline_even_among_others():
    with pytest.raises(ArgumentTypeError, match="is a int"):
        check_start(["zero", 3])


def test_the_mean_of_another_model_is_refused(decoder):
    other = iglens.Decoder(build("gpt2"), tokenizer())
    with pytest.raises(ArtifactError, match="not of LlamaForCausalLM"):
        explain(decoder, TEXT, target=" is", baseline=iglens.corpus_mean(other, TEXTS))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "no corpus mean"),
        ("[]", "no corpus mean"),
        ('{"schema": "iglens.corpus-mean/1"}', "`mean` is missing"),
        ('{"schema": "iglens.corpus-mean/1", "mean": ["a"]}', "holds text"),
    ],
)
def test_a_damaged_mean_is_refused(tmp_path, content, said):
    path = tmp_path / "mean.json"
    path.write_text(content)
    with pytest.raises(ArtifactError, match=said):
        iglens.load_corpus_mean(path)


def test_a_corpus_without_a_second_token_is_refused(decoder):
    with pytest.raises(ArgumentError, match="at least one text of two tokens"):
        iglens.corpus_mean(decoder, [[5], [6]])
