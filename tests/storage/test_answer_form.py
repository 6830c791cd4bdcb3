import json
from importlib.resources import files

import numpy as np
from factories import assert_same, make_answer, make_attribution
from jsonschema import Draft202012Validator

from iglens.storage.json_form import attribution_to_json, json_bytes
from iglens.storage.json_reader import from_json_bytes

SCHEMA = json.loads((files("iglens.data") / "attribution.schema.json").read_text())
LOGS = np.log([[0.1, 0.2, 0.8], [0.2, 0.3, 0.5]])


def test_an_answer_is_a_field_of_its_attribution():
    attribution = make_answer(LOGS, texts=[" Ha", "noi"])
    document = json.loads(json_bytes(attribution))
    Draft202012Validator(SCHEMA).validate(document)
    entry, answer = document["answer"], attribution.answer()
    assert entry["text"] == " Hanoi"
    assert entry["words"] == [{"text": " Hanoi", "pieces": [0, 2]}]
    np.testing.assert_array_equal(entry["credits"], answer.credits)
    np.testing.assert_array_equal(entry["joint"], answer.joint)
    np.testing.assert_allclose(
        np.sum(entry["credits"], 0), entry["joint_credits"], atol=1e-15
    )
    properties = SCHEMA["properties"]["answer"]["properties"]
    assert set(entry) == set(properties)
    assert set(entry["completeness"]) == set(properties["completeness"]["properties"])


def test_reading_an_attribution_back_computes_the_answer_anew():
    attribution = make_answer(LOGS)
    assert_same(from_json_bytes(json_bytes(attribution)), attribution)


def test_rows_that_are_no_answer_have_none():
    assert attribution_to_json(make_attribution())["answer"] is None
    assert attribution_to_json(make_answer(LOGS, begin=1))["answer"] is None


def test_levels_that_are_not_finite_are_null_in_the_answer_too():
    logs = np.array([[-1.0, -np.inf, -1.0], [-1.0, -1.0, -1.0]])
    document = json.loads(json_bytes(make_answer(logs)))
    Draft202012Validator(SCHEMA).validate(document)
    assert document["answer"]["joint_log"][1] is None
    assert document["answer"]["joint"][1] == 0
    assert document["answer"]["credits"] == [[None, None], [None, None]]


def test_an_answer_alone_says_what_it_is_about():
    answer = make_answer(LOGS).answer()
    document = answer.to_json()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["schema"] == "iglens.answer/1"
    assert document["model"]["id"] == "a/model"
    assert document["positions"] == [2, 3]
    assert [t["text"] for t in document["target"]] == document["pieces"]
    assert document["layers"] == [1, 2]
    assert document["sharing"] == "logarithmic"
