"""Planted models do what their plans say, and scores say who found it."""

from importlib.metadata import version
from pathlib import Path

import pytest
import torch

import iglens
from iglens.methods import METHODS
from playground import table
from playground.__main__ import main
from playground.kinds import KINDS
from playground.mechanisms import MECHANISMS, planted
from playground.numbers import AUDITS, TUNED_ON, Numbers, all_numbers
from playground.plan import Plan, Site
from playground.scores import Score, answers, check, score_of
from playground.trained import trained

PAGE = (Path(__file__).parents[1] / "docs/playground.md").read_text()

SEEDS = (0, 1)


@pytest.fixture(scope="module", params=[(m, s) for m in MECHANISMS for s in SEEDS])
def subject(request):
    return planted(*request.param)


def levels(subject, prompts):
    """Probability of the target after every layer, read plainly: layers by prompts."""
    ids = torch.tensor([prompt.ids for prompt in prompts])
    targets = torch.tensor([[prompt.target] for prompt in prompts])
    base = subject.model.transformer
    states = [base.wte(ids) + base.wpe(torch.arange(ids.shape[1]))]
    for block in base.h:
        output = block(states[-1])
        states.append(output[0] if isinstance(output, tuple) else output)
    logits = subject.model.lm_head(base.ln_f(torch.stack(states)[:, :, -1]))
    plain = subject.model(ids).logits[:, -1]
    torch.testing.assert_close(logits[-1], plain)
    targets = targets.expand(len(logits), -1, 1)
    return logits.softmax(-1).gather(2, targets)[..., 0]


def test_a_model_needs_its_planned_layers_and_no_other(subject):
    found = check(subject, subject.prompts(64, 100))
    assert found.right == 1
    assert found.probability > 0.6
    assert found.without_cause <= 0.25
    assert found.without_other >= 0.95


def test_the_token_becomes_readable_where_it_is_planned(subject):
    level = levels(subject, subject.prompts(32, 100))
    for site in subject.plan.readable:
        assert level[site.layer].mean() > 0.6
        assert level[site.layer - 1].mean() < 0.2
    assert (level[-1] > 0.3).all()


def test_it_is_the_planned_heads_that_do_it(subject):
    prompts = subject.prompts(64, 100)
    heads = {(s.layer, s.head) for s in subject.plan.cause if s.part == "attention"}
    assert heads
    for layer in range(1, 9):
        for head in range(4):
            own = subject.model.transformer.h[layer - 1].attn.c_proj.weight
            rows = slice(head * 32, head * 32 + 32)
            kept = own[rows].clone()
            own[rows] = 0.0
            right, _ = answers(subject, prompts)
            own[rows] = kept
            assert right <= 0.25 if (layer, head) in heads else right >= 0.95


def test_seeds_differ_in_layers_heads_and_answers_and_repeat_themselves():
    for name in MECHANISMS:
        plans = [planted(name, seed).plan for seed in range(6)]
        assert len(set(plans)) >= 5
    one, again, other = (planted("lookup", seed) for seed in (3, 3, 4))
    states = [each.model.state_dict() for each in (one, again, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert one.plan == again.plan
    assert one.prompts(20, 5) == again.prompts(20, 5) != one.prompts(20, 6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 3])
def test_a_trained_model_needs_the_layers_that_could_learn_it(seed):
    subject = trained(seed)
    found = check(subject, subject.prompts(64, 100))
    assert found.right >= 0.98
    assert found.without_cause <= 0.5  # it still knows what was not yet repeated
    assert found.without_other >= 0.95
    level = levels(subject, subject.prompts(32, 100)).mean(1)
    readable = subject.plan.readable[0].layer
    assert level[readable] - level[readable - 1] > 0.5


def scored(values, readable, cause, level="layer"):
    plan = Plan(
        tuple(Site(layer, "attention", 1) for layer in readable),
        tuple(Site(layer, "attention", 1) for layer in cause),
    )
    found = {s.question: s for s in score_of("m", plan, Numbers("x", level, values))}
    return {question: (s.first, s.found) for question, s in found.items()}


def test_a_score_asks_for_the_largest_numbers():
    values = {(1,): 0.1, (2,): 0.5, (3,): 0.4, (4,): -2.0}
    assert scored(values, [2], [2, 3]) == {"readable": (True, 1), "cause": (True, 1)}
    assert scored(values, [3], [1, 2]) == {
        "readable": (False, 0),
        "cause": (True, 0.5),
    }
    assert scored(values, [4], [1, 4])["cause"] == (False, 0)


def test_what_is_not_finite_is_never_the_largest():
    values = {(1,): float("nan"), (2,): -0.5, (3,): float("inf")}
    assert scored(values, [2], [1]) == {"readable": (True, 1), "cause": (False, 0)}


def test_what_a_plan_does_not_name_is_not_asked():
    heads = {(1, 0): 1.0, (1, 1): 2.0}
    plan = Plan((Site(1, "mlp"),), (Site(1, "attention", 1), Site(2, "mlp")))
    found = list(score_of("m", plan, Numbers("x", "head", heads)))
    assert [(s.question, s.planned, s.first) for s in found] == [("cause", 1, True)]


@pytest.fixture(scope="module")
def numbers():
    subject = planted("move, then read", 0)
    decoder = iglens.Decoder(subject.model)
    return all_numbers(decoder, subject.prompts(3, 7), subject.prompts(TUNED_ON, 8))


@pytest.fixture(scope="module")
def moved(numbers):
    plan = planted("move, then read", 0).plan
    return [s for own in numbers for each in own for s in score_of("m", plan, each)]


def mean(found, method, question, level="layer"):
    own = [
        s.found
        for s in found
        if (s.method, s.question, s.level) == (method, question, level)
    ]
    assert own
    return sum(own) / len(own)


def test_every_method_is_asked(moved):
    layers = {score.method for score in moved if score.level == "layer"}
    assert {method.title for method in METHODS.values()} <= layers
    assert set(AUDITS) | {"gate path", "update size"} <= layers
    below = {(score.method, score.level) for score in moved} - {
        (name, "layer") for name in layers
    }
    assert below >= {
        ("IG-Lens", "part"),
        ("IG-Lens", "head"),
        ("DLA per sublayer", "part"),
        ("DLA per head", "head"),
        ("skip effect", "part"),
        ("gate path", "part"),
    }
    counts = {(s.level, s.places) for s in moved if s.method == "IG-Lens"}
    assert counts == {("layer", 8), ("part", 16), ("head", 32)}


def test_who_reads_sees_the_reader_and_who_intervenes_the_carrier_too(moved):
    assert mean(moved, "IG-Lens", "readable") == 1
    assert mean(moved, "IG-Lens", "cause") < 1
    assert mean(moved, "skip effect", "cause") == 1
    assert mean(moved, "gate path", "cause") == 1


def test_readings_are_scored_by_what_each_layer_adds(numbers):
    for own in numbers:
        said = {(each.method, each.level): each.values for each in own}
        assert said["logit lens", "layer"] == pytest.approx(said["IG-Lens", "layer"])


def test_a_short_run_prints_its_tables_and_leaves_the_page_alone(capsys):
    main(["--seeds", "1", "--prompts", "1", "--only", "lookup"])
    printed = capsys.readouterr().out
    assert "1 models of each kind (seeds 0 to 0), 1 prompts each" in printed
    assert f"torch {version('torch')}" in printed
    assert "| IG-Lens | 100% | 100% |" in printed
    assert table.PAGE.read_text() == PAGE


def test_the_page_has_every_method_and_every_kind():
    block = PAGE.split(table.BEGIN)[1].split(table.END)[0]
    for method in METHODS.values():
        assert f"\n| {method.title} |" in block
    for name in KINDS:
        assert f"| {name} |" in block


def test_writing_keeps_what_stands_around(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.write("new", page)
    assert page.read_text() == f"before\n{table.BEGIN}\n\nnew\n\n{table.END}\nafter\n"


def test_a_table_shows_hits_and_what_was_found_of_several():
    many = [
        Score("two", "x", "layer", "cause", 2, 8, first, found)
        for first, found in [(True, 0.5), (False, 0.5), (True, 1), (True, 0)]
    ]
    one = [Score("one", "x", "layer", "cause", 1, 8, first, first) for first in (1, 0)]
    lines = table.scores_table([*one, *many]).splitlines()
    assert lines[0] == "| method | one | two | mean |"
    assert lines[2] == "| x | 50% | 75%, 50% | 50% |"
    assert lines[3] == "| *chance* | 12% | 25% | 19% |"
