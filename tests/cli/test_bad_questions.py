"""Bad input of targets, lenses and baselines: one line each that says what to do."""

import json

import classifiers
import pytest
import torch
from families import build, some_ids, tokenizer

import iglens
from iglens.cli.main import run

TEXT = "The capital of France is"


def saved(folder, **changes):
    build("llama", **changes).save_pretrained(folder)
    tokenizer(chat=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Models that are not the tiny one, by what is other in them."""
    folder = tmp_path_factory.mktemp("others")
    return {
        "width": saved(folder / "width", hidden_size=64),
        "vocabulary": saved(folder / "vocabulary", vocab_size=101),
        "depth": saved(folder / "depth", num_hidden_layers=2),
        "weights": saved(folder / "weights", seed=3),
    }


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "text.jsonl"
    words = "the capital of France is not a city in the north of"
    lines = [
        json.dumps({"text": " ".join(f"{words} {n}" for n in some_ids(4, seed))})
        for seed in range(20)
    ]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def refusal(capsys):
    """The one line that a command is refused with."""

    def call(*arguments):
        capsys.readouterr()
        code = run([*map(str, arguments), "--quiet"])
        out, err = capsys.readouterr()
        assert (code, out) == (2, "")
        assert err.startswith("iglens: ")
        assert err.count("\n") == 1
        return err

    return call


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--target", ""), "`target` has an empty piece; write `\\|` for a bar."),
        (("--target", " Paris|"), "`target` has an empty piece"),
        (("--contrast", ""), "`target` has an empty piece"),
        (("--target", " Paris| Paris"), "' Paris| Paris' names a token twice"),
        (
            ("--target", " Paris", "--contrast", " Paris"),
            "' Paris' is contrasted with itself.",
        ),
        (
            ("--target", " Paris| Rome", "--contrast", " Rome| Paris"),
            "' Paris| Rome' is contrasted with itself.",
        ),
        (
            ("--target", " Paris| Rome", "--contrast", " Paris"),
            "on both sides of its contrast; they would cancel",
        ),
        (("--target", "@kl", "--contrast", "@rival"), "has no rival: only a token"),
        (("--target", "@entropy", "--contrast", " Paris"), "make no contrast"),
        (("--answer", ""), "`answer` is empty: there is nothing to explain."),
        (("--baseline", "corpus"), "corpus:FILE, prompt:TEXT, or a vector (vector:"),
    ],
    ids=str,
)
def test_sets_and_contrasts_that_are_none(refusal, tiny_folder, arguments, line):
    assert line in refusal("explain", TEXT, "-m", tiny_folder, *arguments)


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("width", "which has 32 dimensions; "),
        ("vocabulary", "which has 97 tokens; "),
        ("depth", "which has 3 layers; "),
        ("weights", "the unembedding of"),
    ],
)
def test_a_lens_of_another_model(
    refusal, tiny_folder, others, corpus, tmp_path, what, line
):
    lens = tmp_path / "tiny.lens"
    fit = ("lens", "fit", tiny_folder, "--text", corpus, "--tokens", 900, "-o", lens)
    assert run([*map(str, fit), "--quiet"]) == 0
    said = refusal("explain", TEXT, "-m", others[what], "--lens", lens)
    assert line in said
    assert str(others[what]) in said
    assert "Fit one with `iglens lens fit`" in said


@pytest.mark.parametrize("what", ["width", "vocabulary", "weights"])
def test_a_corpus_mean_of_another_model(refusal, tiny_folder, others, tmp_path, what):
    decoder = iglens.Decoder.from_pretrained(tiny_folder)
    mean = iglens.corpus_mean(decoder, ["the cat sat on the mat"])
    mean.save(tmp_path / "mean.json")
    baseline = ("--baseline", f"corpus:{tmp_path / 'mean.json'}")
    assert run(["explain", TEXT, "-m", str(tiny_folder), *baseline, "--quiet"]) == 0
    said = refusal("explain", TEXT, "-m", others[what], *baseline)
    assert f"is of {tiny_folder}, not of {others[what]} (" in said
    assert "Take it anew with `iglens.corpus_mean`" in said


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("the cat sat on the mat", "Too little text: 19 tokens in 1 document(s)"),
        ("the cat sat\n\na dog sat\n\nthe mat", "32 dimensions need more than 32; 256"),
    ],
)
def test_a_text_too_short_for_a_lens(refusal, tiny_folder, tmp_path, text, line):
    (tmp_path / "short.txt").write_text(text)
    fit = ("lens", "fit", tiny_folder, "--text", tmp_path / "short.txt")
    said = refusal(*fit, "-o", tmp_path / "a.lens")
    assert line in said
    assert "Give more text, or a larger `tokens`." in said
    assert not (tmp_path / "a.lens").exists()


def test_a_text_of_too_few_documents_for_a_lens(refusal, tiny_folder, tmp_path):
    (tmp_path / "one.txt").write_text("the capital of France is a city " * 30)
    fit = ("lens", "fit", tiny_folder, "--text", tmp_path / "one.txt")
    assert "at least 3 are needed" in refusal(*fit, "-o", tmp_path / "a.lens")


@pytest.mark.parametrize("command", ["fit", "eval"])
def test_a_reward_has_no_lens_that_could_be_judged(refusal, corpus, tmp_path, command):
    saved_reward = tmp_path / "reward"
    classifiers.build("llama", 1).save_pretrained(saved_reward)
    tokenizer(chat=True).save_pretrained(saved_reward)
    lens = ("--lens", "logit") if command == "eval" else ("-o", tmp_path / "a.lens")
    said = refusal("lens", command, saved_reward, "--text", corpus, *lens)
    assert "no distribution" in said
    assert "Read the raw states: `--lens logit`." in said
    assert not (tmp_path / "a.lens").exists()


@pytest.mark.parametrize("option", ["--rivals=1", "--promotion"])
def test_a_reward_has_no_rivals(refusal, tmp_path, option):
    classifiers.build("llama", 1).save_pretrained(tmp_path)
    tokenizer(chat=True).save_pretrained(tmp_path)
    said = refusal("explain", TEXT, "-m", tmp_path, option)
    assert "no distribution" in said
    assert "only a level" in said


def test_a_classifier_writes_no_text_to_fit_on(refusal, tmp_path):
    classifiers.build("llama", 2).save_pretrained(tmp_path)
    tokenizer(chat=True).save_pretrained(tmp_path)
    said = refusal("lens", "fit", tmp_path, "-o", tmp_path / "a.lens")
    assert "cannot generate text of its own. Give some: `--text` or" in said


@pytest.mark.parametrize(
    ("prompt", "answer", "line"),
    [
        ("The capital of Franc", "e is", "makes [' France', ' is'] of it"),
        ("The capital of France ", "Rome", "as in ' Rome'."),
    ],
)
def test_an_answer_whose_border_lies_inside_a_token(
    refusal, tiny_folder, prompt, answer, line
):
    said = refusal("explain", prompt, "-m", tiny_folder, "--answer", answer)
    assert "does not continue the prompt's tokens" in said
    assert line in said


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_states_without_moments(refusal, corpus, tmp_path, value):
    model, codec = build("llama"), tokenizer(chat=True)
    north = codec(" north").input_ids[-1]
    with torch.no_grad():
        model.model.embed_tokens.weight[north] = value
    for part in (model, codec):
        part.save_pretrained(tmp_path / "odd")
    fit = ("lens", "fit", tmp_path / "odd", "--text", corpus, "--tokens", 900)
    said = refusal(*fit, "-o", tmp_path / "a.lens")
    assert "The states of layer 0 or the last hold NaN or infinity" in said
    assert not (tmp_path / "a.lens").exists()
