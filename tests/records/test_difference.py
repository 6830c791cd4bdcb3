"""The difference of two additive tables: additive, antisymmetric, of like with like."""

import json
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from factories import assert_same, make_attribution, recipes
from hypothesis import given, settings
from isolated import run_python
from jsonschema import Draft202012Validator

from iglens.errors import ArgumentError, OutputError
from iglens.records import Target
from iglens.records.difference import Difference, diff
from iglens.storage import attribution_from_json

SCHEMA = json.loads((files("iglens.data") / "difference.schema.json").read_text())


def another(result, seed=1):
    """Other numbers in the same places."""
    rng = np.random.default_rng(seed)
    moved = {
        name: getattr(result, name) + rng.normal(size=getattr(result, name).shape)
        for name in ("levels", "writes", "model_value")
    }
    levels = moved["levels"]
    credits = np.diff(np.where(np.isfinite(levels), levels, np.nan), axis=1)
    return replace(result, credits=credits, noise_floor=result.noise_floor * 3, **moved)


def later(result, by, prompt_tokens=None):
    """The same rows in a longer text."""
    ids = np.concatenate([np.full(by, 96), result.token_ids])
    provenance = replace(
        result.provenance,
        settings={"prompt_tokens": len(ids)} if prompt_tokens is None else {},
    )
    return replace(
        result,
        token_ids=ids,
        token_texts=("?",) * by + result.token_texts,
        positions=result.positions + by,
        vocabulary={},
        provenance=provenance,
    )


@given(recipe=recipes())
@settings(deadline=None)
def test_the_difference_of_additive_tables_is_additive(recipe):
    a = make_attribution(**recipe)
    b = another(a)
    found = diff(a, b)
    parts = b.completeness - a.completeness
    np.testing.assert_allclose(found.completeness, parts, atol=1e-9)
    if recipe["estimator"] == "observed":
        finite = np.isfinite(found.credits).all(1)
        np.testing.assert_allclose(
            (found.baseline + found.credits.sum(1))[finite],
            found.final[finite],
            atol=1e-9,
        )


@given(recipe=recipes())
@settings(deadline=None)
def test_a_result_less_itself_is_nothing(recipe):
    a = make_attribution(**recipe)
    found = diff(a, a)
    assert found.n_rows == a.n_rows
    known = np.isfinite(a.credits)
    assert (found.credits[known] == 0).all()
    assert np.isnan(found.credits[~known]).all()
    assert not found.beyond_noise[known].any()
    assert found.beyond_noise[~known].all()
    assert found.notes == ()


@given(recipe=recipes())
@settings(deadline=None)
def test_the_other_way_round_every_sign_is_the_other(recipe):
    a = make_attribution(**recipe)
    b = another(a)
    one, other = diff(a, b), diff(b, a)
    for name in ("levels", "credits", "writes", "baseline", "final", "completeness"):
        np.testing.assert_array_equal(getattr(one, name), -getattr(other, name))
    np.testing.assert_array_equal(one.beyond_noise, other.beyond_noise)


def test_credits_are_those_of_b_less_those_of_a():
    a = make_attribution(rows=2, seed=3)
    b = another(a)
    found = diff(a, b)
    np.testing.assert_array_equal(found.credits, b.credits - a.credits)
    np.testing.assert_array_equal(found.final, b.levels[:, -1] - a.levels[:, -1])
    np.testing.assert_array_equal(found.baseline, b.levels[:, 0] - a.levels[:, 0])
    np.testing.assert_array_equal(found.writes, b.writes - a.writes)
    assert (found.a, found.b) != (b, a)


def test_both_noise_floors_count_and_a_credit_has_two_ends():
    a = make_attribution(rows=1, n_layers=3, noise_floor=0.25)
    b = replace(a, noise_floor=np.array([0.5]))
    shift = np.array([[0.0, 1.4999, 3.0, 4.5002]])
    b = replace(b, levels=a.levels + shift, credits=a.credits + np.diff(shift))
    found = diff(a, b)
    assert found.noise_floor.tolist() == [0.75]
    assert found.beyond_noise.tolist() == [[False, True, True]]


def test_a_floor_that_is_not_known_calls_nothing_rounding():
    a = make_attribution(rows=2, noise_floor=np.nan)
    assert diff(a, a).beyond_noise.all()


def test_coarsening_sums_the_differences():
    a = make_attribution(rows=2, n_layers=6)
    b = another(a)
    fine, coarse = diff(a, b), diff(a, b, layers=[0, 2, 5])
    assert coarse.layers == (2, 5, 6)
    sums = np.add.reduceat(fine.credits, [0, 2, 5], axis=1)
    np.testing.assert_allclose(coarse.credits, sums, atol=1e-12)
    assert "[2, 5, 6]" in coarse.notes[0]


def test_paths_through_other_layers_are_refused_with_those_they_share():
    a = make_attribution(n_layers=6)
    b = a.coarsen([2, 3])
    with pytest.raises(ArgumentError, match=r"`layers` 2,3,6\."):
        diff(a, b)
    assert diff(a, b, layers=[2, 6]).layers == (2, 6)


def test_models_of_other_depths_are_refused_whatever_the_layers():
    a, b = make_attribution(n_layers=4), make_attribution(n_layers=6)
    for layers in (None, [2]):
        with pytest.raises(ArgumentError, match="layer 4 and the second at layer 6"):
            diff(a, b, layers=layers)


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"unit": "log_odds"}, "unit is probability in the first and log_odds"),
        ({"baseline_kind": "zero"}, "baseline is embedding in the first and zero"),
        ({"lens": "ridge"}, "lens is logit in the first and ridge"),
        ({"estimator": "gradient(midpoint, n_steps=4)"}, "the estimator is observed"),
    ],
)
def test_results_made_otherwise_are_refused_with_the_difference(change, fact):
    a = make_attribution()
    with pytest.raises(ArgumentError, match=fact.replace("(", r"\(")):
        diff(a, replace(a, **change))


def test_every_difference_is_named_at_once():
    a = make_attribution()
    with pytest.raises(ArgumentError, match=r"unit is .*; the lens is"):
        diff(a, replace(a, unit="log_odds", lens="ridge"))


def test_equal_ids_of_other_vocabularies_are_no_target():
    a = make_attribution()
    b = replace(a, token_texts=tuple(f"{text}!" for text in a.token_texts))
    with pytest.raises(ArgumentError, match="different vocabularies"):
        diff(a, b)


def test_labels_of_a_classifier_are_not_taken_for_tokens():
    a = make_attribution(rows=1, seed=5)
    labelled = replace(a, vocabulary={int(a.token_ids[0]): "POSITIVE"})
    elsewhere = replace(a, vocabulary={96: "NEGATIVE"})
    assert diff(labelled, elsewhere).n_rows == 1
    with pytest.raises(ArgumentError, match="'POSITIVE' in the first and 'other'"):
        diff(labelled, replace(a, vocabulary={int(a.token_ids[0]): "other"}))


def test_a_vocabulary_that_nobody_can_read_does_not_count():
    a = make_attribution()
    ids = a.token_ids.tolist()
    b = replace(a, token_texts=tuple(f"<{i}>" for i in ids), vocabulary={})
    assert diff(a, b).n_rows == a.n_rows


def test_rows_are_matched_by_target_and_distance_from_the_end_of_the_prompt():
    a = make_attribution(rows=3, seed=5)
    settings = {"prompt_tokens": len(a.token_ids)}
    a = replace(a, provenance=replace(a.provenance, settings=settings))
    b = later(another(a), 4)
    shuffled = b.select([2, 0, 1])
    for other in (b, shuffled):
        found = diff(a, other)
        np.testing.assert_array_equal(found.credits, b.credits - a.credits)
        assert (found.b.positions - found.a.positions).tolist() == [4, 4, 4]


def test_where_the_prompt_is_not_known_places_count_from_the_end_of_the_text():
    a = make_attribution(rows=3, seed=5)
    found = diff(a, later(a, 4, prompt_tokens=0))
    assert found.n_rows == 3


def test_in_the_same_text_the_position_counts_whatever_was_the_prompt():
    a = make_attribution(rows=2, seed=5)
    b = replace(a, provenance=replace(a.provenance, settings={"prompt_tokens": 1}))
    assert diff(a, b).n_rows == 2


def test_how_a_set_was_written_does_not_matter():
    a = make_attribution(rows=1)
    one = replace(a, targets=(Target((5, 7), "a|b"),))
    other = replace(a, targets=(Target((7, 5), "b|a"),))
    assert diff(one, other).n_rows == 1


def test_the_same_row_twice_is_matched_twice():
    a = make_attribution(rows=1)
    b = another(a)
    found = diff(a.select([0, 0]), b.select([0, 0]))
    assert found.n_rows == 2
    once = diff(a.select([0, 0]), b)
    assert once.n_rows == 1
    assert "1 of the first result and 0 of the second" in once.notes[0]


def test_rows_without_a_counterpart_are_left_out_and_told():
    a = make_attribution(rows=4, seed=2)
    found = diff(a.select([0, 1, 2]), a.select([3, 1]))
    assert found.n_rows == 1
    assert found.notes == (
        "Rows without a counterpart are left out: 2 of the first result and 1 of the "
        "second.",
    )
    assert_same(found.a, a.select([1]))


def test_nothing_in_common_is_refused_with_what_each_explains():
    a = make_attribution(rows=1, seed=1)
    b = replace(a, targets=(Target((96,), " elsewhere"),))
    with pytest.raises(ArgumentError, match=r"nothing in common.*' elsewhere' at"):
        diff(a, b)


def test_rows_that_are_not_one_to_one_make_no_difference():
    a = make_attribution(rows=2)
    with pytest.raises(ArgumentError, match="matches them"):
        Difference(a, a.select([1]))
    with pytest.raises(ArgumentError, match="matches them"):
        Difference(a, a.coarsen([3]))


@given(recipe=recipes())
@settings(deadline=None)
def test_every_difference_fits_the_schema_and_holds_both_results(recipe):
    a = make_attribution(**recipe)
    document = diff(a, another(a)).to_json()
    document = json.loads(json.dumps(document, allow_nan=False))
    Draft202012Validator(SCHEMA).validate(document)
    assert set(SCHEMA["properties"]) == set(document)
    assert set(SCHEMA["required"]) == set(document)
    for side in ("a", "b"):
        attribution_from_json(document[side])


def test_the_json_holds_the_numbers():
    a = make_attribution(rows=2)
    found = diff(a, another(a))
    document = found.to_json()
    assert document["credits"] == found.credits.tolist()
    assert document["final"] == found.final.tolist()
    assert document["noise_floor"] == found.noise_floor.tolist()
    assert document["beyond_noise"] == found.beyond_noise.tolist()
    assert document["a"]["levels"] == a.levels.tolist()


@given(recipe=recipes())
@settings(deadline=None)
def test_within_a_row_of_the_table_credits_add_up(recipe):
    a = make_attribution(**recipe)
    found = diff(a, another(a))
    table = found.to_arrow().to_pandas()
    assert len(table) == found.n_rows * len(found.segments)
    for row, part in table.groupby("row"):
        np.testing.assert_array_equal(part["credit"], found.credits[row])
        np.testing.assert_array_equal(part["credit_a"], found.a.credits[row])
        np.testing.assert_array_equal(part["credit_b"], found.b.credits[row])
        np.testing.assert_array_equal(part["level_b"], found.b.levels[row, 1:])
        np.testing.assert_array_equal(part["beyond_noise"], found.beyond_noise[row])
        assert list(part["layer"]) == list(found.layers)
        assert set(part["token"]) == {found.targets[row].name}


def test_files_are_written_by_extension(tmp_path):
    a = make_attribution(rows=2)
    found = diff(a, another(a))
    for end in ("json", "csv", "parquet"):
        found.save(tmp_path / f"d.{end}")
    assert json.loads((tmp_path / "d.json").read_text()) == found.to_json()
    table = pyarrow.parquet.read_table(tmp_path / "d.parquet")
    assert table.num_rows == 2 * len(a.segments)
    assert table.schema.metadata[b"iglens.schema"] == b"iglens.difference/1"
    header = json.loads(table.schema.metadata[b"iglens"])
    assert header["a"]["model"]["id"] == "a/model"
    assert pa.csv.read_csv(tmp_path / "d.csv").column_names == table.column_names


def test_a_difference_is_no_result_to_be_loaded_again(tmp_path):
    a = make_attribution()
    with pytest.raises(OutputError, match=r"\.json, \.csv, \.parquet"):
        diff(a, a).save(tmp_path / "d.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_taking_differences_of_files_needs_no_torch(tmp_path):
    make_attribution().save(tmp_path / "a.json")
    code = (
        "import sys; from iglens.records import Attribution\n"
        "from iglens.records.difference import diff\n"
        f"a = Attribution.load({str(tmp_path / 'a.json')!r})\n"
        f"d = diff(a, a); str(d); d.save({str(tmp_path / 'd.json')!r})\n"
        "sys.exit('torch' in sys.modules)"
    )
    run_python(code)
