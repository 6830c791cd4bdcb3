"""What the table makes of a method's numbers."""

import io
import math
from dataclasses import replace

import numpy as np
import pytest
from factories import make_provenance
from rich.console import Console

import iglens
from iglens.records import Target
from iglens.records.comparison import Comparison, Contributions, Cost, Entry, Reading
from iglens.report.comparison import render

COST = Cost(1, 0, 3, 0.5)


def made(found, *, baseline=0.1, final=0.6, reason=None):
    return Comparison(
        token_texts=("a", "b"),
        position=2,
        target=Target((5,), " x"),
        n_layers=3,
        baseline=baseline,
        final=final,
        log_odds=math.log(final / (1 - final)),
        noise_floor=1e-6,
        fidelity=0.0,
        entries=(Entry("some", "some method", found, reason, COST),),
        provenance=make_provenance("a", 3),
    )


def credits(*values, unit="probability", layers=(1, 2, 3), start=0.1):
    parts = ("block",) * len(values)
    total = float(np.sum(values)) + 0.25
    return Contributions(unit, layers, parts, np.array(values), total, start)


def test_a_credit_in_logits_becomes_what_is_lost_without_it():
    (line,) = made(credits(1.0, -2.0, 0.5, unit="logit")).table
    odds = math.log(0.6 / 0.4)
    without = [1 / (1 + math.exp(-(odds - c))) for c in (1.0, -2.0, 0.5)]
    assert line.total == pytest.approx(sum(0.6 - w for w in without))
    assert line.error == pytest.approx(line.total - 0.5)
    assert line.own_error == pytest.approx(-0.25)
    assert "log-odds" in line.conversion


def test_the_change_is_along_the_methods_own_path():
    (line,) = made(credits(0.2, 0.2, 0.1, start=0.3)).table
    assert line.change == pytest.approx(0.3)
    assert line.error == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("values", "final", "expected"),
    [
        ((0.2, 0.0, 0.3), 0.6, True),
        ((0.2, -1e-7, 0.3), 0.6, True),
        ((0.6, -0.1, 0.0), 0.6, False),
        ((-0.02, 0.0, -0.03), 0.05, True),
        ((-0.2, 0.0, 0.15), 0.05, False),
    ],
)
def test_monotone_is_no_layer_against_the_whole(values, final, expected):
    (line,) = made(credits(*values), final=final).table
    assert line.monotone is expected


def test_parts_of_a_layer_count_together():
    parts = credits(0.9, -0.8, 0.3, layers=(1, 1, 2))
    (line,) = made(parts).table
    assert (line.monotone, line.peak) == (True, 2)
    assert made(parts).by_layer(parts) == pytest.approx({1: 0.1, 2: 0.3})


def test_a_reading_steps_by_its_rises_and_promises_nothing():
    (line,) = made(Reading("probability", (1, 2, 3), np.array([0.2, 0.5, 0.6]))).table
    assert (line.monotone, line.peak, line.own_error) == (True, 2, None)
    assert line.total == pytest.approx(1.3)
    (line,) = made(Reading("probability", (1, 2, 3), np.array([0.2, 0.1, 0.6]))).table
    assert line.monotone is False


def test_levels_in_logits_are_no_probabilities():
    found = made(Reading("logit", (1,), np.array([1.0])))
    with pytest.raises(iglens.ArgumentError, match="cannot be turned"):
        found.table  # noqa: B018 - it is computed


@pytest.mark.parametrize("form", ["html", "md", "csv", "json"])
def test_every_form_holds_hostile_reasons_and_nan(form):
    hostile = "<script>x</script> | \x1b[31m"
    text = made(None, reason=hostile).text(form)
    if form in ("html", "md"):
        assert "<script" not in text.replace("\\<script>", "")
    nan = made(credits(0.1, math.nan, 0.2)).text(form)
    assert nan
    if form == "json":
        assert "NaN" not in nan
    if form in ("html", "md"):
        assert "\x1b" not in text


def test_a_form_there_is_not_is_refused(tmp_path):
    with pytest.raises(iglens.OutputError, match="gif"):
        made(credits(0.1, 0.2, 0.2)).save(tmp_path / "table.gif")
    assert list(tmp_path.iterdir()) == []


def test_as_text_it_is_the_table():
    text = str(made(credits(0.1, 0.2, 0.2)))
    assert "| some method | probability | +0.5000 |" in text


@pytest.mark.parametrize("value", [9.9999, 9.99996, -9.99996, 123.4])
def test_large_sums_do_not_widen_the_table(value):
    page = made(credits(value, 0.0, 0.0)).text("md").splitlines()
    line = next(line for line in page if line.startswith("| some method |"))
    assert len(line.split("|")[3].strip()) <= 8


@pytest.mark.parametrize("seconds", [9.94, 9.96, 129.6])
def test_a_slow_machine_has_the_same_table(seconds):
    """Wider seconds would break the words of other columns, 80 signs being full."""
    found = made(credits(0.1, 0.2, 0.2))
    long = replace(found.entries[0], title="gradient x displacement")
    shown = []
    for time in (0.5, seconds):
        cost = Cost(110, 105, 1953, time)
        entry = replace(long, cost=cost)
        console = Console(width=80, file=io.StringIO())
        console.print(render(replace(found, entries=(entry,))))
        shown.append(console.file.getvalue().splitlines())
    fast, slow = shown
    assert [line[:-4] for line in fast] == [line[:-4] for line in slow]
    assert any(line.startswith("displacement") for line in slow)
