"""`--rivals`, `--promotion` and `--sensitivity`: what is said after the map."""

import json
import re

import numpy as np
import pytest

import iglens
from iglens.cli.main import run

TEXT = "The capital of France is"
PARIS = ("--target", " Paris")
ROME = ("--contrast", " Rome")


@pytest.fixture
def explain(tiny_folder, capsys):
    def call(*arguments):
        code = run(["explain", TEXT, "-m", str(tiny_folder), "--quiet", *arguments])
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def asked(tiny_folder):
    """The same question in Python."""
    decoder = iglens.Decoder.from_pretrained(tiny_folder)
    return decoder, iglens.prepare(decoder, TEXT, target=" Paris")


def after_the_map(out):
    return out.split(" readout in float32.\n\n")[1]


def test_without_these_options_nothing_follows_the_map(explain):
    code, out, _ = explain(*PARIS)
    assert code == 0
    assert out.endswith(" readout in float32.\n")
    code, out, _ = explain(*PARIS, "--json")
    assert not {"flow", "promotion", "sensitivity"} & set(json.loads(out))


def test_rivals_are_those_of_the_library_and_as_many_as_asked_for(explain, asked):
    _, out, _ = explain(*PARIS, "--rivals", "2")
    flow = iglens.Reader().flows(*asked, top=2)
    assert after_the_map(out) == f"{flow}\n"
    named = re.findall(r"gained (.*?); lost (.*)", out)
    assert 1 <= len(named) <= 3
    assert all(side.count("'") == 4 for pair in named for side in pair)
    assert "exchanged: from " in out
    assert "gains and losses cancel within" in out


@pytest.mark.parametrize("top", ["1", "3"])
def test_rivals_in_json_explain_the_credits(explain, top):
    _, out, _ = explain(*PARIS, "--rivals", top, "--json")
    document = json.loads(out)
    flow = document["flow"]
    assert {len(cell) for row in flow["gains"] for cell in row} == {int(top)}
    np.testing.assert_allclose(flow["credits"], document["credits"], atol=1e-7)
    np.testing.assert_allclose(flow["vocabulary_sum"], 0, atol=1e-6)
    largest = int(np.abs(document["credits"][0]).argmax())
    assert [n > 0 for n in flow["nodes"][0]] == [i == largest for i in range(3)]
    parts = [flow[side][0][largest] for side in ("sent", "received")]
    total = sum(token["change"] for part in parts for token in part)
    total += flow["others"][0][largest]
    assert total == pytest.approx(flow["credits"][0][largest], abs=1e-12)


def test_promotion_is_that_of_the_library_and_names_its_conventions(explain, asked):
    _, out, _ = explain(*PARIS, "--promotion")
    assert after_the_map(out) == f"{iglens.Reader().promotion(*asked)}\n"
    assert "target promoted" in out
    assert "rivals demoted" in out
    assert "Log-odds in nats; centred by the mean over the vocabulary" in out


def test_both_splits_in_json_add_up_to_the_log_odds_of_the_map(explain):
    _, out, _ = explain(*PARIS, "--promotion", "--unit", "log_odds", "--json")
    document = json.loads(out)
    split = {k: np.array(v) for k, v in document["promotion"].items() if k != "prompt"}
    for one, other in (("promotion", "competition"), ("temperature", "preference")):
        np.testing.assert_allclose(
            split[one] + split[other], document["credits"], atol=1e-5
        )


def test_everything_follows_in_one_order(explain):
    _, out, _ = explain(*PARIS, "--promotion", "--rivals", "1", "--sensitivity")
    rest = after_the_map(out)
    heads = ("Baselines compared", "' Paris' at 5: 0.", "Log-odds in nats")
    places = [rest.index(head) for head in heads]
    assert places == sorted(places)


@pytest.mark.parametrize("option", [("--rivals", "1"), ("--promotion",)])
def test_of_a_contrast_the_first_side_is_told(explain, option):
    _, plain, _ = explain(*PARIS, *option)
    code, contrast, _ = explain(*PARIS, *ROME, *option)
    assert code == 0
    assert after_the_map(contrast) == after_the_map(plain)


@pytest.mark.parametrize("option", [("--rivals", "1"), ("--promotion",)])
def test_every_token_of_an_answer_is_told(explain, option):
    _, out, _ = explain("--answer", " Rome is", *option)
    rest = after_the_map(out)
    assert "' Rome' at 5: " in rest
    assert "' is' at 6: " in rest


@pytest.mark.parametrize("unit", ["probability", "log_probability"])
def test_a_sensitivity_names_every_start(explain, unit):
    own = ("--baseline", "prompt:The capital of Rome is")
    _, out, _ = explain(*PARIS, "--sensitivity", "--unit", unit, *own)
    lines = after_the_map(out).splitlines()
    assert lines[0].startswith(f"Baselines compared, {unit}: ")
    starts = [re.match(r"  ' Paris' at 5 from (.*?): ", x)[1] for x in lines[1:-1]]
    assert starts == ["embedding", "zero", "mean", "prompt"]
    assert lines[-1] == "Every later credit is the same, within 0."


def test_a_sensitivity_adds_up_from_every_start(explain):
    _, out, _ = explain(*PARIS, "--sensitivity", "--json")
    document = json.loads(out)
    found = document["sensitivity"]
    later = sum(document["credits"][0])
    for base, first in zip(found["baseline"][0], found["first"][0], strict=True):
        assert base + first + later == pytest.approx(document["final"][0], abs=1e-12)


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (("--rivals", "0"), "greater than or equal to 1. See `iglens explain --help`."),
        (("--rivals", "two"), "'--rivals': Input should be a valid integer"),
        (
            ("--target", "@entropy", "--rivals", "1"),
            "'entropy', an entropy; this takes tokens",
        ),
        (("--target", "@kl", "--promotion"), "a divergence; this takes tokens"),
        (("--promotion", "--baseline", "zero", "--baseline", "mean"), "one path"),
        (("--rivals", "1", "--baseline", "zero", "--baseline", "mean"), "one path"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_does_not_fit_is_refused_in_one_line(explain, arguments, fact):
    code, out, err = explain("--max-new-tokens", "1", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("iglens: ")
    assert err.count("\n") == 1
    assert fact in err


def test_the_interaction_of_parts_is_told_and_printed(tiny_folder, capsys):
    asked = ["explain", TEXT, "-m", str(tiny_folder), *PARIS, "--quiet"]
    assert run([*asked, "--by", "sublayer", "--interaction"]) == 0
    assert "beyond the parts alone (attention" in capsys.readouterr().out
    assert run([*asked, "--by", "sublayer", "--interaction", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["interaction"]
    for row, alone in enumerate(found["alone"]):
        credits, together = found["credits"][row], sum(found["interaction"][row])
        assert sum(credits) - sum(alone) == pytest.approx(together, abs=1e-12)
    assert run([*asked, "--interaction"]) == 2
    assert "add `--by sublayer`" in capsys.readouterr().err
