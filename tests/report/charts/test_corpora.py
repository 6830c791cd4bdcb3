"""Charts of summaries and of two runs hold what their records hold."""

import json

import numpy as np
import pytest
from stores import made_up

from iglens.corpus.difference import difference_of_runs
from iglens.corpus.summary import summarise
from iglens.errors import ArgumentError
from iglens.report.charts.files import picture_bytes

KINDS = ("credits", "levels", "onsets", "slices", "null")


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    null = {"null": {"of": "targets", "seed": 0}}
    return made_up(1).write(folder / "a"), made_up(2, **null).write(folder / "null")


@pytest.fixture(scope="module")
def summary(stores):
    return summarise(stores[0], slices=["correct", "size"], null=stores[1])


@pytest.fixture(scope="module")
def difference(stores):
    return difference_of_runs(*stores, pair="id")


def drawn(chart):
    """All lines of data in a chart."""
    found = []

    def look(part):
        if isinstance(part, dict):
            found.extend(part.get("data", {}).get("values", []))
            for inner in part.values():
                look(inner)
        elif isinstance(part, list):
            for inner in part:
                look(inner)

    document = chart.to_dict()
    look(document)
    return [*found, *(one for lines in document["datasets"].values() for one in lines)]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_summary_chart_draws_itself_and_says_so_in_words(summary, kind, theme):
    chart = summary.figure(kind, theme=theme)
    assert len(chart.to_dict()["description"]) > 40
    assert picture_bytes(chart, ".svg").startswith(b"<svg")


@pytest.mark.parametrize("kind", ["difference", "both"])
def test_every_chart_of_two_runs_draws_itself(difference, kind):
    chart = difference.figure(kind)
    assert len(chart.to_dict()["description"]) > 40
    assert picture_bytes(chart, ".svg").startswith(b"<svg")


def test_the_natural_chart_holds_mean_interval_and_band(summary):
    lines = [line for line in drawn(summary.figure()) if "mean" in line]
    credits = summary.whole[0].credits
    for name in ("mean", "low", "high", "band_low", "band_high"):
        shown = [line[name] for line in lines[:4]]
        assert shown == getattr(credits, name).tolist()


def test_histograms_count_every_token_that_has_the_depth(summary):
    total = sum(line["n"] for line in drawn(summary.figure("onsets")))
    depths = summary.whole[0].depths.values()
    assert total == sum(int(one.counts.sum()) for one in depths)
    assert f"{summary.whole[0].depths['commit'].missing} without commit" in json.dumps(
        summary.figure("onsets").to_dict()
    )


def test_every_group_has_its_dot(summary):
    values = [line["value"] for line in drawn(summary.figure("slices"))]
    groups = [group for one in summary.slices for group in one.groups]
    assert set(values) == {group.final.value for group in groups}


def test_null_and_run_are_both_there(summary):
    lines = drawn(summary.figure("null"))
    means = [line["mean"] for line in lines if line.get("what") == "null"][:4]
    assert means == summary.null.groups[0].credits.mean.tolist()


def test_the_difference_is_drawn_b_less_a(difference):
    lines = [line for line in drawn(difference.figure()) if "mean" in line][:4]
    group = difference.groups[0]
    assert np.array([line["mean"] for line in lines]) == pytest.approx(
        group.b.mean - group.a.mean
    )


def test_what_cannot_be_drawn_is_refused(stores, summary, difference):
    plain = summarise(stores[0])
    with pytest.raises(ArgumentError, match="no slices"):
        plain.figure("slices")
    with pytest.raises(ArgumentError, match="no null"):
        plain.figure("null")
    for record in (summary, difference):
        with pytest.raises(ArgumentError, match="known are"):
            record.figure("pie")
        with pytest.raises(ArgumentError, match="known are light, dark"):
            record.figure(theme="pink")


def test_a_notebook_shows_chart_and_words(summary, difference):
    for record, said in ((summary, "Over 30 prompts"), (difference, "pairs of tokens")):
        bundle = record._repr_mimebundle_()
        bundle = bundle[0] if isinstance(bundle, tuple) else bundle
        assert said in bundle["text/plain"]
        assert len(bundle) > 1


def test_a_summary_without_intervals_draws_too(tmp_path):
    few = summarise(made_up(n_prompts=3).write(tmp_path / "few"), slices=["correct"])
    for kind in ("credits", "onsets", "slices"):
        chart = few.figure(kind)
        assert picture_bytes(chart, ".svg").startswith(b"<svg")
    assert "Too few prompts" in json.dumps(few.figure().to_dict())
