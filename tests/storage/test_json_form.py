import json
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
from factories import BASELINES, assert_same, make_attribution, recipes
from hypothesis import given, settings
from jsonschema import Draft202012Validator

from iglens.errors import ArtifactError
from iglens.records import UNITS, Flag
from iglens.storage import attribution_from_json, attribution_to_json
from iglens.storage.json_form import STABLE, json_bytes
from iglens.storage.json_reader import from_json_bytes

SCHEMA = json.loads((files("iglens.data") / "attribution.schema.json").read_text())
ASKED_FOR = {
    "flow",
    "promotion",
    "sensitivity",
    "interaction",
}  # printed by a command's options

# The contract, written out: a rename must fail here first.
PROMISED = [
    "schema",
    "model",
    "tokens",
    "positions",
    "target",
    "unit",
    "baseline_kind",
    "lens",
    "estimator",
    "readout",
    "layers",
    "labels",
    "segments",
    "levels",
    "credits",
    "baseline",
    "final",
    "model_value",
    "fidelity",
    "precision_gap",
    "completeness",
    "rank",
    "lens_kl",
    "top_tokens",
    "depths",
    "flags",
    "warnings",
    "versions",
]
PROMISED_OF_MODEL = [
    "id",
    "path",
    "revision",
    "weights_sha256",
    "dtype",
    "n_layers",
    "vocab_size",
]


def as_read_back(result):
    """What JSON can hold of a result: NaN for infinity, texts of the shown tokens."""
    written = attribution_to_json(result)
    flags = tuple(Flag(**flag) for flag in written["flags"])
    arrays = {
        name: np.where(
            np.isfinite(getattr(result, name)), getattr(result, name), np.nan
        )
        for name in ("levels", "credits", "model_value", "lens_kl")
    }
    return replace(result, flags=flags, **arrays)


def through_text(document):
    return json.loads(json.dumps(document, allow_nan=False))


@given(recipe=recipes())
@settings(deadline=None)
def test_reading_back_gives_an_equal_result(recipe):
    result = make_attribution(**recipe)
    assert_same(from_json_bytes(json_bytes(result)), as_read_back(result))


@given(recipe=recipes())
@settings(deadline=None)
def test_writing_what_was_read_gives_the_same_bytes(recipe):
    written = json_bytes(make_attribution(**recipe))
    assert json_bytes(from_json_bytes(written)) == written


@given(recipe=recipes())
@settings(deadline=None)
def test_every_result_fits_the_schema(recipe):
    document = through_text(attribution_to_json(make_attribution(**recipe)))
    Draft202012Validator(SCHEMA).validate(document)


def test_the_schema_is_a_schema():
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("baseline", BASELINES)
def test_stable_fields_are_written_and_described(unit, baseline):
    document = attribution_to_json(make_attribution(unit=unit, baseline=baseline))
    assert list(STABLE) == PROMISED == list(document)[: len(PROMISED)]
    assert set(PROMISED) <= set(SCHEMA["required"])
    assert set(PROMISED_OF_MODEL) <= set(document["model"])


def test_the_schema_describes_what_is_written_and_nothing_else():
    document = attribution_to_json(make_attribution(top=1))
    assert set(SCHEMA["properties"]) == set(document) | ASKED_FOR
    for name in ("model", "readout"):
        assert set(SCHEMA["properties"][name]["properties"]) == set(document[name])
    for name in ("tokens", "target", "segments", "depths"):
        entry = SCHEMA["properties"][name]["items"]
        assert set(entry["properties"]) == set(document[name][0])
        assert set(entry["required"]) == set(document[name][0])


def test_every_field_of_the_schema_has_a_description():
    def lacking(schema, name):
        for field, entry in schema.get("properties", {}).items():
            if "const" not in entry and not entry.get("description"):
                yield f"{name}.{field}"
            yield from lacking(entry, f"{name}.{field}")
        if isinstance(schema.get("items"), dict):
            yield from lacking(schema["items"], f"{name}[]")

    assert not list(lacking(SCHEMA, "$"))


def test_the_schema_refuses_a_result_without_its_levels():
    document = attribution_to_json(make_attribution())
    del document["levels"]
    assert not Draft202012Validator(SCHEMA).is_valid(document)


def test_the_fields_say_what_the_result_says():
    result = make_attribution(rows=2, top=2, baseline="mean")
    document = attribution_to_json(result)
    assert document["schema"] == "iglens.attribution/1"
    assert document["model"]["id"] == "a/model"
    assert document["layers"] == [0, 1, 2, 3, 4, 5, 6]
    assert document["labels"][1] == "layer 1 (model.layers.0)"
    assert document["levels"] == result.levels.tolist()
    assert document["credits"] == result.credits.tolist()
    assert document["baseline"] == [row[0] for row in document["levels"]]
    assert document["final"] == [row[-1] for row in document["levels"]]
    assert document["precision_gap"] == result.precision_gap.tolist()
    assert document["completeness"] == result.completeness.tolist()
    for i, token in enumerate(document["tokens"]):
        assert token == {
            "position": i,
            "id": result.token_ids[i],
            "text": result.token_texts[i],
        }
    for target, written in zip(result.targets, document["target"], strict=True):
        assert written == {
            "kind": target.kind,
            "ids": list(target.ids),
            "text": target.text,
            "against": list(target.against),
            "against_text": target.against_text,
            "space": result.unit,
        }
    top = document["top_tokens"][1][3][1]
    assert top["id"] == result.top_ids[1, 3, 1]
    assert top["text"] == result.vocabulary[top["id"]]
    assert top["probability"] == result.top_probabilities[1, 3, 1]


def test_depths_are_pairs_of_path_layers_or_null():
    result = make_attribution(rows=1, layers=[2, 4], baseline="mean")
    levels = np.array([[0.0, 0.1, 0.9, 1.0]])
    top1 = np.array([[True, True, True, True]])
    result = replace(result, levels=levels, credits=np.diff(levels), top1=top1)
    document = attribution_to_json(result)
    assert document["depths"] == [
        {
            "onset_mass": [0, 2],
            "onset_net": [0, 2],
            "commit": [0, 2],
            "prediction_depth": [None, 0],
        }
    ]
    assert document["churn"] == [pytest.approx(1.0)]
    assert document["overshoot"] == [0.0]
    still = attribution_to_json(replace(result, levels=levels * 0, top1=~top1))
    assert set(still["depths"][0].values()) == {None}
    assert still["churn"] == [None]


def test_what_was_not_computed_is_null_or_empty_without_a_flag():
    document = attribution_to_json(make_attribution(rows=1, layers=[1]))
    assert document["rank"] == [[None, None]]
    assert document["lens_kl"] == [[None, None]]
    assert document["top_tokens"] == [[[], []]]
    assert document["flags"] == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_level_that_is_not_finite_is_null_and_keeps_its_flag(value):
    result = make_attribution(rows=1, layers=[1, 2, 3], holes=[(0, 1, value)])
    document = attribution_to_json(result)
    assert document["levels"][0][1] is None
    assert document["credits"][0][:2] == [None, None]
    assert document["flags"][0] == {
        "row": 0,
        "point": 1,
        "kind": "non_finite_level",
        "detail": f"The level is {value}.",
    }


@given(recipe=recipes())
@settings(deadline=None)
def test_every_null_has_its_cell_among_the_flags(recipe):
    result = make_attribution(**recipe)
    document = attribution_to_json(replace(result, flags=()))
    flagged = {(flag["row"], flag["point"]) for flag in document["flags"]}
    nulls = {
        (row, point + offset)
        for name, offset in (("levels", 0), ("credits", 1))
        for row, values in enumerate(document[name])
        for point, value in enumerate(values)
        if value is None
    }
    nulls |= {(r, None) for r, v in enumerate(document["model_value"]) if v is None}
    assert flagged == nulls


@given(recipe=recipes())
@settings(deadline=None)
def test_flags_that_are_there_are_not_written_twice(recipe):
    flags = attribution_to_json(make_attribution(**recipe))["flags"]
    assert len({(flag["row"], flag["point"]) for flag in flags}) == len(flags)


@pytest.mark.parametrize(
    ("name", "shape", "cell"),
    [
        ("lens_kl", (2, 7), (1, 2)),
        ("top_probabilities", (2, 7, 3), (1, 2)),
        ("fidelity", (2,), (1, None)),
        ("log_fidelity", (2,), (1, None)),
        ("model_value", (2,), (1, None)),
    ],
)
def test_infinity_anywhere_becomes_null_and_one_flag(name, shape, cell):
    result = make_attribution(rows=2, top=3)
    values = getattr(result, name).copy()
    assert values.shape == shape
    values[(1, 2, 0)[: len(shape)]] = np.inf
    document = attribution_to_json(replace(result, **{name: values}))
    json.dumps(document, allow_nan=False)
    assert document["flags"] == [
        {
            "row": cell[0],
            "point": cell[1],
            "kind": "non_finite_value",
            "detail": f"{name} is inf",
        }
    ]


def test_settings_that_json_cannot_hold_do_not_lose_the_result():
    result = make_attribution()
    settings = {
        "t": np.inf,
        "n": np.int64(3),
        "x": np.float32(0.5),
        "o": {1: (2, None)},
    }
    provenance = replace(result.provenance, settings=settings)
    provenance.settings["dtype"] = np.dtype("int8")
    document = attribution_to_json(replace(result, provenance=provenance))
    assert through_text(document)["settings"] == {
        "t": None,
        "n": 3,
        "x": 0.5,
        "o": {"1": [2, None]},
        "dtype": "int8",
    }


def test_lone_numbers_that_are_infinite_are_null_and_read_back_as_nan():
    result = make_attribution()
    result = replace(result, readout=replace(result.readout, power=np.inf))
    found = attribution_from_json(through_text(attribution_to_json(result)))
    assert np.isnan(found.readout.power)
    assert found.readout.tolerance == result.readout.tolerance


def test_text_is_ascii_and_half_characters_survive():
    result = make_attribution(texts=("é\ud800",))
    written = json_bytes(result)
    written.decode("ascii")
    assert from_json_bytes(written).targets[0].text == "é\ud800"


def test_float32_levels_come_back_as_the_same_numbers():
    result = make_attribution()
    narrow = replace(result, levels=result.levels.astype(np.float32))
    found = attribution_from_json(through_text(attribution_to_json(narrow)))
    assert found.levels.dtype == np.float64
    np.testing.assert_array_equal(found.levels, narrow.levels)


def test_fields_of_later_versions_are_ignored():
    result = make_attribution(top=1)
    document = through_text(attribution_to_json(result))
    document["features"] = {"of": ["the", "future"]}
    document["model"]["quantisation"] = "none"
    document["segments"][0]["parts"] = []
    document["target"][0]["within"] = None
    assert_same(attribution_from_json(document), result)


def test_a_result_without_rows_comes_back():
    result = make_attribution().select([])
    assert_same(from_json_bytes(json_bytes(result)), result)


WRITTEN = [name for name in SCHEMA["properties"] if name not in ASKED_FOR]


@pytest.mark.parametrize("name", WRITTEN)
def test_a_missing_field_is_named(name):
    document = attribution_to_json(make_attribution())
    if name in ("answer", "churn", "overshoot", "components", "pruned"):  # optional
        return
    del document[name]
    with pytest.raises(ArtifactError, match=rf"`{name}`"):
        attribution_from_json(document)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema", "iglens.attribution/2", r"'iglens.attribution/2'.*attribution/1'"),
        ("schema", "another", r"`schema` is 'another'"),
        ("schema", 1, r"`schema` is an integer, not text"),
        ("unit", "bits", r"`unit` is 'bits'"),
        ("segments", [], r"`levels` has shape"),
        ("segments.0.layer", "1", r"`segments\[0\].layer` is text, not an integer"),
        ("segments.0.layer", True, r"is true or false, not an integer"),
        ("segments.1", None, r"`segments\[1\]` is null, not an object"),
        ("target.1.ids", [], r"names? no token|holds no token"),
        ("target.0.ids", [1, "2"], r"`target\[0\].ids\[1\]` is text"),
        ("target.0.ids", [4, 4], r"twice"),
        ("target", [], r"has shape"),
        ("model", [], r"`model` is a list, not an object"),
        ("model.n_layers", None, r"`model.n_layers` is null, not an integer"),
        ("versions.torch", 2, r"`versions.torch` is an integer, not text"),
        ("levels", [[0.5]], r"`levels` has shape \(1, 1\).* \(3, 7\)"),
        ("levels.0", [0.5], r"`levels` has shape \(3,\)"),
        ("levels.0.0", "0.5", r"`levels` holds text"),
        ("levels.0.0", True, r"`levels` holds true or false"),
        ("levels.0.0", 10**400, r"too large"),
        ("levels", None, r"`levels` is null, not a list"),
        ("credits.2", [], r"`credits` has shape"),
        ("top1.0.0", None, r"`top1` holds null"),
        ("rank.0.0", 1.5, r"`rank` holds a number"),
        ("rank.0.0", 2**80, r"too large"),
        ("positions.0", -1, r"`positions` holds -1"),
        ("positions.0", 99, r"`positions` holds 99, but the text has"),
        ("tokens.0", {"id": 1}, r"`tokens\[0\].text` is missing"),
        ("top_tokens", [], r"`top_tokens` has not 3 rows"),
        ("top_tokens.0.0", [{"id": 1}], r"`top_tokens` needs as many"),
        ("top_tokens.0.0.0.id", None, r"`top_tokens\[0\].id` is null"),
        ("top_tokens.0", None, r"`top_tokens` has not 3 rows"),
        ("flags", [{"row": 9, "point": 0, "kind": "", "detail": ""}], r"names row 9"),
        ("flags", [{"row": 0, "point": 7, "kind": "", "detail": ""}], r"point 7"),
    ],
)
def test_a_wrong_field_is_named(path, value, message):
    document = through_text(attribution_to_json(make_attribution(top=2)))
    *parents, last = [int(p) if p.isdecimal() else p for p in path.split(".")]
    place = document
    for parent in parents:
        place = place[parent]
    place[last] = value
    with pytest.raises(ArtifactError, match=message):
        attribution_from_json(document)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not whole or not JSON"),
        (b"[1, 2]", "not an object"),
        (b"[" * 100_000, "not whole or not JSON"),
        (b'{"schema": NaN}', "NaN is no JSON value"),
        (b"{}", "no `schema`"),
        (b"\xff\xfe\x00\xff" * 9, "not whole or not JSON"),
    ],
)
def test_what_is_not_a_result_is_refused(data, message):
    with pytest.raises(ArtifactError, match=message):
        from_json_bytes(data)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(share):
    written = json_bytes(make_attribution(top=2))
    with pytest.raises(ArtifactError, match="not whole or not JSON"):
        from_json_bytes(written[: int(len(written) * share)])
