"""The commands on saved classifiers and reward models."""

import json

import classifiers as c
import pytest
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


@pytest.mark.parametrize("kind", ["judge", "reward"])
def test_the_doctor_finds_it_exact(capsys, kind, request):
    code = run(["doctor", str(request.getfixturevalue(kind)), "--quiet", "--json"])
    assert (code, json.loads(capsys.readouterr().out)["verdict"]) == (0, "exact")
