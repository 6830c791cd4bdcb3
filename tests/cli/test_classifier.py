"""The commands on saved classifiers and reward models."""

import json

import classifiers as c
import pytest
import torch
from classifiers import own_logits
from families import tokenizer

from iglens import Decoder
from iglens.cli.main import run

TEXT = "The capital of France is"


def saved(folder, labels):
    c.build("llama", labels).save_pretrained(folder)
    tokenizer(chat=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("judge"), 2)


@pytest.fixture(scope="module")
def reward(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("reward"), 1)


@pytest.fixture
def call(capsys):
    def run_command(command, folder, *arguments):
        code = run([command, "-m", str(folder), "--quiet", *arguments])
        return code, *capsys.readouterr()

    return run_command


def test_the_predicted_label_is_explained_and_named(call, judge):
    code, out, err = call("explain", judge, TEXT)
    model = c.build("llama", 2)
    p = own_logits(model, Decoder(model, tokenizer()).encode(TEXT)).softmax(-1)
    label = c.NAMES[int(p.argmax())]
    assert (code, err) == (0, "")
    assert f"'{label}': {float(p.max()):.2f}; " in out
    assert "Verified: total variation from its own distribution" in out


def test_json_holds_the_named_labels_and_adds_up(call, judge):
    targets = ("--target", "POSITIVE", "--target", "NEGATIVE")
    code, out, _ = call("explain", judge, TEXT, *targets, "--json")
    document = json.loads(out)
    assert code == 0
    assert [target["text"] for target in document["target"]] == ["POSITIVE", "NEGATIVE"]
    assert sum(document["final"]) == pytest.approx(1)
    assert document["model"]["vocab_size"] == 2
    assert document["positions"] == [len(document["tokens"])] * 2
    for base, credits, final in zip(
        document["baseline"], document["credits"], document["final"], strict=True
    ):
        assert base + sum(credits) == pytest.approx(final, abs=1e-12)


def test_a_reward_comes_in_logits(call, reward):
    code, out, _ = call("explain", reward, TEXT)
    assert code == 0
    assert "raw logits" in out
    assert "Verified: largest difference from its own logits" in out
    _, out, _ = call("explain", reward, TEXT, "--json")
    document = json.loads(out)
    assert (document["unit"], document["readout"]["measure"]) == ("logit", "logit")
    assert document["lens_kl"][0][0] is None


def test_two_labels_are_contrasted(call, judge):
    options = ("--target", "POSITIVE", "--contrast", "NEGATIVE", "--unit", "logit")
    code, out, _ = call("explain", judge, TEXT, *options)
    assert code == 0
    assert "'POSITIVE' against 'NEGATIVE'" in out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--target", "Positive"), "no label of this model, which has 0 'NEGATIVE', 1"),
        (("--answer", " Paris"), "pass the whole text as the prompt"),
        (("--positions", "prompt"), "answers to whole texts"),
    ],
)
def test_what_a_classifier_cannot_do_is_said_in_a_line(call, judge, arguments, reason):
    code, out, err = call("explain", judge, TEXT, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert reason in err


def test_a_reward_has_no_probability(call, reward):
    code, _, err = call("explain", reward, TEXT, "--unit", "probability")
    assert code == 2
    assert "softmax of a single logit is 1" in err


@pytest.mark.parametrize("kind", ["judge", "reward"])
def test_a_saved_result_is_replayed(call, capsys, kind, request, tmp_path):
    folder, file = request.getfixturevalue(kind), tmp_path / "result.json"
    assert call("explain", folder, TEXT, "-o", str(file))[0] == 0
    assert run(["replay", str(file), "--quiet"]) == 0
    assert "dentical" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "unit"), [("judge", "probability"), ("reward", "logit")]
)
def test_two_texts_are_compared(call, kind, unit, request):
    folder, other = request.getfixturevalue(kind), "The capital of Rome is a city"
    code, out, err = call("diff", folder, TEXT, other, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["unit"] == unit
    assert found["target"][0]["ids"] == found["b"]["target"][0]["ids"]
    a, b = (found[side]["final"][0] for side in "ab")
    assert found["final"] == [b - a]
    assert found["baseline"][0] + sum(found["credits"][0]) == pytest.approx(b - a)
    model = c.build("llama", 2 if kind == "judge" else 1)
    ids = [Decoder(model, tokenizer()).encode(text) for text in (TEXT, other)]
    said = [own_logits(model, i) for i in ids]
    if kind == "judge":
        label = found["target"][0]["ids"][0]
        assert label == int(said[0].argmax())  # the first text's label, in both
        said = [z.softmax(-1)[label] for z in said]
    assert found["final"][0] == pytest.approx(float(said[1] - said[0]), abs=1e-5)


def test_two_classifiers_are_compared(call, judge, tmp_path):
    model = c.build("llama", 2)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight *= 1.5
    model.save_pretrained(tmp_path)
    tokenizer(chat=True).save_pretrained(tmp_path)
    code, out, err = call("diff", judge, TEXT, "--against", str(tmp_path), "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [c == 0 for c in found["credits"][0]] == [True, False, False]
    assert found["layers"] == [1, 2, 3]


def test_a_changed_classifier_is_told_by_a_replay(capsys, call, tmp_path):
    folder = saved(tmp_path / "model", 2)
    file = tmp_path / "result.json"
    assert call("explain", folder, TEXT, "-o", str(file))[0] == 0
    model = c.build("llama", 2)
    with torch.no_grad():
        model.score.weight *= 1.01
    model.save_pretrained(folder)
    assert run(["replay", str(file), "--quiet"]) == 2
    out = capsys.readouterr().out
    assert out.startswith("Changed")
    assert "weights" in out


@pytest.mark.parametrize("kind", ["judge", "reward"])
def test_the_doctor_finds_it_exact(capsys, kind, request):
    code = run(["doctor", str(request.getfixturevalue(kind)), "--quiet", "--json"])
    assert (code, json.loads(capsys.readouterr().out)["verdict"]) == (0, "exact")
