"""The suite's short form, its arithmetic, and its pages."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import tables
from benchmarks.cases.maps import PLAIN, SPARED
from benchmarks.claims import CLAIMS, against, worst
from benchmarks.neighbours.environments import NEIGHBOURS
from benchmarks.oracle import largest_error, probabilities
from benchmarks.pairs import Turns, in_turns
from benchmarks.procedure import published_procedure
from benchmarks.product import bare_product, best_blocking, slices
from benchmarks.results import RESULTS, Measurement, Results
from benchmarks.size import SHORT

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def stored():
    return Results.load()


def block(path, name):
    text = (ROOT / path).read_text(encoding="utf-8")
    return text.split(f"<!-- {name}:begin -->\n\n")[1].split(
        f"\n\n<!-- {name}:end -->"
    )[0]


@pytest.mark.parametrize(("page", "name"), tables.BLOCKS)
def test_the_tables_are_those_of_the_stored_results(stored, page, name):
    assert block(page, name) == tables.BLOCKS[page, name](stored)


def test_the_stored_results_are_of_the_full_form(stored):
    assert stored.about["form"] == "full"
    assert {"cpu", "cores", "threads", "memory_gib"} <= set(stored.about["machine"])
    lengths = {(each.model, each.tokens) for each in stored.of("map", what=PLAIN)}
    assert lengths == {
        (model, n) for model in ("smollm2", "gemma3-270m") for n in (50, 500, 5000)
    }
    assert set(stored.neighbours) == {each.name for each in NEIGHBOURS}
    for each in stored.measurements:
        assert each.ratios or each.value is not None or each.note
    for name, known in stored.neighbours.items():
        there = any(each.what == name for each in stored.measurements)
        assert there or known["reasons"], name


def test_every_number_of_the_readme_follows_the_results(stored):
    doubled = replace(
        stored,
        measurements=tuple(
            replace(
                each,
                ratios=[2 * ratio for ratio in each.ratios],
                seconds={n: [2 * s for s in v] for n, v in each.seconds.items()},
                value=None if each.value is None else 2 * each.value,
            )
            for each in stored.measurements
        ),
    )
    numbers = r"(?<=[| ])\d[\d.e-]*(?=\W)"
    cells, others = (
        [re.findall(numbers, line.partition("|")[2].partition("|")[2])
         for line in tables.readme(each).splitlines()[2:]]
        for each in (stored, doubled)
    )  # fmt: skip
    assert sum(map(len, cells)) > 6
    for row, other in zip(cells, others, strict=True):
        for one, two in zip(row, other, strict=True):
            assert float(two) == pytest.approx(2 * float(one), rel=0.05)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The short form, run as a user would."""
    path = tmp_path_factory.mktemp("bench") / "short.json"
    before = RESULTS.read_text(encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--short", "--output", str(path)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert RESULTS.read_text(encoding="utf-8") == before
    return Results.load(path), done.stdout


@pytest.mark.embedded
@pytest.mark.slow
def test_the_short_form_measures_and_prints(measured):
    results, printed = measured
    assert results.about["form"] == "short"
    for case in SHORT.cases:
        assert any(results.of(case)), case
    assert "| Layer map, every point read whole |" in printed
    assert json.loads(RESULTS.read_text())["schema"] == "iglens.benchmarks/1"


@pytest.mark.embedded
@pytest.mark.slow
@pytest.mark.parametrize("what", [PLAIN, SPARED])
def test_the_readout_is_not_slower_than_it_was(measured, stored, what):
    """A guard of ratios, wide enough for a machine that is busy."""
    results, _ = measured
    assert worst(results, "map", what)["smollm2"] <= (1.6 if what == PLAIN else 1.2)
    now = worst(results, "floor", what)  # whichever product this processor is for
    (then,) = stored.of("floor", what=what, model="smollm2", tokens=50)
    assert now["smollm2"] <= 1.3 * then.median


@pytest.mark.embedded
@pytest.mark.slow
def test_wide_logits_take_no_longer_than_narrow_ones(measured):
    (found,) = measured[0].of("spread", what="wide logits")
    assert found.median < 1.5


@pytest.mark.embedded
@pytest.mark.slow
def test_the_readout_is_as_exact_as_it_was(measured, stored):
    (now,) = measured[0].of("accuracy", what=PLAIN)
    (then,) = stored.of("accuracy", what=PLAIN, model="smollm2")
    assert 0 < now.median <= 3 * then.median


def test_ways_take_turns_in_changing_order():
    said = []
    ways = {name: lambda name=name: said.append(name) for name in "ab"}
    turns = in_turns([ways] * 3)
    assert "".join(said) == "ab" + "ab" + "ba" + "ab"
    assert {name: len(times) for name, times in turns.seconds.items()} == {
        "a": 3,
        "b": 3,
    }


def test_ratios_are_taken_within_rounds():
    turns = Turns({"a": (2.0, 9.0), "b": (1.0, 3.0), "c": (1.0, 3.0)})
    assert turns.ratios("a", "b") == [2, 3]
    assert turns.ratios("a", "b", counted=10) == [20, 30]
    assert turns.less("a", "c", "rest").ratios("rest", "b") == [1, 2]
    found = Measurement.of("map", turns, "a", "b", model="m")
    assert (found.median, found.spread) == (2.5, (2, 3))
    assert found.seconds == {"a": (2, 9), "b": (1, 3)}


def test_stretches_cover_a_text_evenly():
    parts = slices(1000, 100, 4)
    assert [part.start for part in parts] == [0, 300, 600, 900]
    assert {part.stop - part.start for part in parts} == {100}


def test_results_come_back_as_they_were_written(tmp_path):
    one = Measurement("map", "a", "b", "m", 5, [1.23456], {"a": [2.0], "b": [1.0]})
    results = Results({"form": "short"}, (one,), {"tool": {"reasons": {"m": "no"}}})
    results.save(tmp_path / "r.json")
    found = Results.load(tmp_path / "r.json")
    assert found.measurements == (replace(one, ratios=[1.235]),)
    assert (found.about, found.neighbours) == (results.about, results.neighbours)
    (tmp_path / "r.json").write_text("{}")
    with pytest.raises(ValueError, match="no results of this suite"):
        Results.load(tmp_path / "r.json")


def some(**numbers):
    """Results of two tools on one model."""
    every = [
        Measurement("map", what.replace("_", "-"), "product", "m", 50, [ratio])
        for what, ratio in numbers.items()
    ]
    return Results({}, tuple(every), {"tuned-lens": {}, "slow": {}})


def test_neighbours_are_compared_by_the_fastest():
    results = some(iglens=1.5, tuned_lens=6.0, slow=60.0)
    assert against(results, PLAIN) == {"m": 4.0}
    assert against(results, PLAIN, "slow") == {"m": 40.0}
    missing = Measurement("map", "slow", "product", "m", 50, note="not measured: x")
    results = replace(
        some(iglens=1.5), measurements=(*some(iglens=1.5).measurements, missing)
    )
    assert against(results, PLAIN) == {}


def test_claims_are_met_by_every_model_or_not_at_all():
    plain, _, _, _, fastest, *_ = CLAIMS
    assert plain.met(some(iglens=1.15))
    assert plain.met(some(iglens=1.16)) is False
    assert plain.met(some()) is None
    assert fastest.met(some(iglens=1.0, slow=3.0))
    assert fastest.met(some(iglens=1.0, slow=2.9)) is False


def head(n_tokens=3, d_model=8, vocab=50):
    """Something with a norm and a head, and states for it."""
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    torch.manual_seed(0)
    model = torch.nn.Module()
    model.model = torch.nn.Module()
    model.model.norm = LlamaRMSNorm(d_model)
    model.lm_head = torch.nn.Linear(d_model, vocab, bias=False)
    torch.nn.init.normal_(model.model.norm.weight)
    return model, torch.randn(4, n_tokens, d_model), torch.tensor([1, 2, 49])


@torch.no_grad()
def test_the_oracle_is_float64_all_through():
    model, states, targets = head()
    weight = model.model.norm.weight.double()
    wide = states.double()
    scale = wide.pow(2).mean(-1, keepdim=True) + model.model.norm.variance_epsilon
    normed = wide * scale.rsqrt() * weight
    chances = (normed @ model.lm_head.weight.double().T).softmax(-1)
    expected = chances[:, torch.arange(3), targets]
    found = probabilities(model, states, targets)
    assert largest_error(found, expected) < 1e-15
    assert model.lm_head.weight.dtype == torch.float32


@torch.no_grad()
def test_the_published_procedure_ends_at_differences_of_levels():
    model, states, targets = head()
    exact = probabilities(model, states, targets).diff(dim=0)
    found = published_procedure(model, states[:-1], states[1:], targets, 7, max_rows=5)
    assert largest_error(found, exact) < 1e-6


@torch.no_grad()
def test_the_bare_product_reads_every_logit_whatever_its_blocks(monkeypatch):
    model, states, _ = head()
    seen, product = [], torch.mm
    monkeypatch.setattr(
        torch, "mm", lambda a, b, out: seen.append(product(a, b, out=out).numel())
    )
    weight = model.lm_head.weight.detach()
    for blocking in ((5, 7), (100, 100)):
        seen.clear()
        bare_product(states.flatten(0, 1), weight, blocking)
        assert sum(seen) == 12 * 50
    assert best_blocking(states.flatten(0, 1), weight, [(5, 7)]) == (5, 7)
