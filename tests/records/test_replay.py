"""The verdict of a replay: identical, within noise, or changed."""

import json
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
from factories import GRADIENT, make_attribution, recipes
from hypothesis import given, settings
from jsonschema import Draft202012Validator

from iglens.records.components import Components
from iglens.records.difference import Difference
from iglens.records.replay import Replay
from iglens.storage import attribution_from_json, attribution_to_json

FLOOR = 1e-3
SCHEMA = json.loads((files("iglens.data") / "replay.schema.json").read_text())


def replayed(then, now):
    return Replay(Difference(then, now))


def moved(result, by, row=0, point=2):
    """The same result with one level, and the credits beside it, moved."""
    levels = result.levels.copy()
    levels[row, point] += by
    credits = np.diff(np.where(np.isfinite(levels), levels, np.nan), axis=1)
    return replace(result, levels=levels, credits=credits)


@given(recipe=recipes())
@settings(deadline=None)
def test_a_result_is_identical_to_itself(recipe):
    result = make_attribution(**recipe)
    found = replayed(result, result)
    assert found.verdict == "identical"
    assert found.is_reproduced
    assert found.changed_facts == ()


@given(recipe=recipes())
@settings(deadline=None)
def test_what_json_cannot_hold_does_not_make_it_another(recipe):
    result = make_attribution(**recipe)
    saved = attribution_from_json(attribution_to_json(result))
    assert replayed(saved, result).verdict == "identical"


@pytest.mark.parametrize(
    ("by", "verdict"),
    [
        (0.0, "identical"),
        (1e-16, "within noise"),
        (1.99 * FLOOR, "within noise"),
        (2.01 * FLOOR, "changed"),
        (-0.5, "changed"),
    ],
)
def test_a_level_may_move_by_both_noise_floors(by, verdict):
    result = make_attribution(rows=2, noise_floor=FLOOR)
    found = replayed(result, moved(result, by))
    assert found.verdict == verdict
    assert found.is_reproduced is (verdict != "changed")


def test_a_model_value_counts_as_a_level():
    result = make_attribution(rows=2, noise_floor=FLOOR)
    now = replace(result, model_value=result.model_value + np.array([0.0, 0.1]))
    assert replayed(result, now).verdict == "changed"


def test_credits_of_the_gradient_may_not_move_by_more_than_two_levels_may():
    result = make_attribution(rows=2, estimator=GRADIENT, noise_floor=FLOOR)
    for by, verdict in ((3.9 * FLOOR, "within noise"), (4.1 * FLOOR, "changed")):
        now = replace(result, credits=result.credits + by)
        assert replayed(result, now).verdict == verdict


def test_observed_credits_follow_from_levels_but_may_not_contradict_them():
    result = make_attribution(rows=2, noise_floor=FLOOR)
    for by, verdict in ((1e-17, "identical"), (0.1, "changed")):
        now = replace(result, credits=result.credits + by)
        assert replayed(result, now).verdict == verdict


def test_a_floor_that_is_not_known_takes_the_same_bits():
    result = make_attribution(rows=2, noise_floor=np.nan)
    assert replayed(result, result).verdict == "identical"
    assert replayed(result, moved(result, 1e-12)).verdict == "changed"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_any_more_is_a_change(value):
    result = make_attribution(rows=2)
    odd = make_attribution(rows=2, holes=[(1, 2, value)])
    assert replayed(result, odd).verdict == "changed"
    assert replayed(odd, result).verdict == "changed"
    assert replayed(odd, odd).verdict == "identical"


def test_infinity_is_not_minus_infinity():
    one, other = (
        make_attribution(holes=[(0, 1, value)]) for value in (np.inf, -np.inf)
    )
    assert replayed(one, other).verdict == "changed"


def test_the_largest_change_counts_in_noise_floors_and_says_where():
    result = make_attribution(rows=2, baseline="mean", layers=[2, 5, 6])
    result = replace(result, noise_floor=np.array([1e-3, 1e-5]))
    now = moved(moved(result, 0.1, 0, 1), -0.01, 1, 3)
    largest = replayed(result, now).largest
    assert (largest.row, largest.point, largest.layer) == (1, 3, 5)
    assert largest.change == pytest.approx(-0.01)
    assert largest.floors == pytest.approx(500)


def test_without_a_finite_level_nothing_is_largest():
    result = make_attribution(
        rows=1, layers=[6], holes=[(0, 0, np.nan), (0, 1, np.nan)]
    )
    assert replayed(result, result).largest is None


def test_facts_say_what_is_not_what_it_was():
    result = make_attribution()
    model = replace(result.provenance.model, weights_sha256="1" * 64)
    provenance = replace(
        result.provenance, model=model, versions={"iglens": "0", "torch": "1"}
    )
    found = replayed(result, replace(result, provenance=provenance))
    changed = {fact.name: (fact.then, fact.now) for fact in found.changed_facts}
    assert changed == {
        "torch": ("0", "1"),
        "weights_sha256": ("0" * 64, "1" * 64),
    }
    assert {"model", "dtype", "revision"} <= {fact.name for fact in found.facts}
    text = str(found)
    assert "torch: 0 → 1" in text
    assert "iglens:" not in text


def test_the_sentence_names_the_cell():
    result = make_attribution(rows=2, noise_floor=FLOOR)
    text = str(replayed(result, moved(result, 0.25, 1, 3)))
    assert text.startswith("Changed: 2 rows of 7 levels")
    assert "at layer 3" in text
    assert "+0.25 probability" in text
    assert "rounding may move it by 0.002" in text
    assert "the baseline" in str(replayed(result, moved(result, 0.25, 1, 0)))


def test_the_json_holds_verdict_cell_and_facts():
    result = make_attribution(rows=2, noise_floor=FLOOR, holes=[(0, 1, np.nan)])
    found = replayed(result, moved(result, 0.25, 1, 3))
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert document["schema"] == "iglens.replay/1"
    assert document["verdict"] == "changed"
    assert document["largest"]["layer"] == 3
    assert document["largest"]["change"] == pytest.approx(0.25)
    assert document["moved"][0][1] is None
    assert document["moved"][1][3] == pytest.approx(0.25)
    assert document["noise_floor"] == [2 * FLOOR] * 2
    assert document["layers"] == [0, 1, 2, 3, 4, 5, 6]
    assert {"name": "torch", "then": "0", "now": "0"} in document["facts"]


@given(recipe=recipes())
@settings(deadline=None)
def test_every_replay_fits_the_schema(recipe):
    result = make_attribution(**recipe)
    document = replayed(result, moved(result, 0.5, 0, 0)).to_json()
    document = json.loads(json.dumps(document, allow_nan=False))
    Draft202012Validator(SCHEMA).validate(document)
    assert set(SCHEMA["properties"]) == set(SCHEMA["required"]) == set(document)


def opened(result, credits=(0.3, -0.2), kinds=("head", "bias")):
    """The result with parts inside its last segment."""
    rows, n_segments = result.credits.shape
    numbers = np.zeros((rows, n_segments))
    inside = Components(
        by="head",
        segments=np.full(len(kinds), n_segments - 1),
        kinds=kinds,
        indices=np.tile(np.arange(len(kinds)), (rows, 1)),
        sources=np.full((rows, len(kinds)), -1),
        credits=np.tile(np.array(credits), (rows, 1)),
        others=result.credits.copy(),
        n_parts=np.zeros(n_segments, np.int64),
        residual=numbers,
        disagreement=numbers,
        closed=numbers,
        tolerance=1e-6,
        tokens=None,
        reasons={},
    )
    return replace(result, components=inside)


@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        ((0.3, -0.2), "identical"),
        ((0.3, -0.2 + 1e-15), "within noise"),
        ((0.3 + 1.9 * FLOOR, -0.2), "within noise"),
        ((0.3, -0.1), "changed"),
        ((np.nan, -0.2), "changed"),
    ],
)
def test_parts_that_moved_are_noticed_though_no_level_did(now, verdict):
    result = make_attribution(noise_floor=FLOOR)
    found = replayed(opened(result), opened(result, now))
    assert found.verdict == verdict
    expected = np.abs(np.array(now) - (0.3, -0.2))
    np.testing.assert_allclose(found.parts_moved, np.tile(expected, (3, 1)))
    Draft202012Validator(SCHEMA).validate(found.to_json())


def test_parts_are_found_again_wherever_they_stand():
    result = opened(make_attribution(noise_floor=FLOOR))
    inside, turned = result.components, [1, 0]
    names = ("credits", "indices", "sources")
    other = replace(
        inside,
        kinds=tuple(inside.kinds[i] for i in turned),
        segments=inside.segments[turned],
        **{name: getattr(inside, name)[:, turned] for name in names},
    )
    assert replayed(result, replace(result, components=other)).verdict == "identical"


def test_parts_that_are_lost_are_a_change():
    result = make_attribution(noise_floor=FLOOR)
    other = opened(result, kinds=("expert", "bias"))
    for now in (result, other):
        found = replayed(opened(result), now)
        assert found.verdict == "changed"
        assert np.isnan(found.parts_moved).any()
    assert "1 are lost; the others moved by 0 at most" in str(found)
    assert replayed(result, opened(result)).verdict == "identical"
    assert replayed(result, opened(result)).to_json()["parts_moved"] is None
    assert "So are its 2 saved parts (by head)." in str(
        replayed(opened(result), opened(result))
    )


def test_parts_that_cancel_may_move_by_as_much_more():
    """A row of small credits may have large parts, and rounding moves these."""
    small = make_attribution(noise_floor=FLOOR)
    small = replace(small, credits=small.credits * 0 + 1e-3)
    big, moved = (300.0, -299.9), (300.5, -299.9)
    assert replayed(opened(small, big), opened(small, moved)).parts_within_noise
    bigger = replace(small, credits=small.credits * 0 + 300.0)
    assert not replayed(opened(bigger, big), opened(bigger, moved)).parts_within_noise
