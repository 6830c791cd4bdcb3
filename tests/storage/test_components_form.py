"""What is inside segments, in files: every bit comes back, and damage is refused."""

import copy
import json
import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from factories import HOSTILE, make_attribution
from jsonschema import Draft202012Validator

from iglens import Attribution
from iglens.errors import ArtifactError
from iglens.records.components import Components
from iglens.storage import attribution_from_json, attribution_to_json
from iglens.storage.components_form import ARRAYS, OPTIONAL, PREFIX

SCHEMA = json.loads((files("iglens.data") / "attribution.schema.json").read_text())
KINDS = ("head", "head", "bias", "source", "head bias")
LISTS = ("segment", "kind", "index", "source", "credits", "others", "n_parts", "closed")


def opened(*, tokens=True, router=True, reason="it is no attention", **but):
    """A random result with parts in two of its segments, some numbers missing."""
    result = make_attribution(rows=2, n_layers=4, baseline="embedding")
    rng = np.random.default_rng(3)
    table = rng.normal(size=(2, 4))
    missing = table.copy()
    missing[:, 2:] = np.nan
    given = {
        "by": "source",
        "segments": np.array([0, 0, 0, 1, 1]),
        "kinds": KINDS,
        "indices": np.array([[0, 3, -1, 2, 2], [4, 0, -1, 1, 2]]),
        "sources": np.broadcast_to([-1, -1, -1, 0, -1], (2, 5)),
        "credits": rng.normal(size=(2, 5)),
        "others": table,
        "n_parts": np.array([9, 4, 0, 0]),
        "residual": missing,
        "disagreement": missing * 2,
        "closed": missing * 3,
        "tolerance": 1e-6,
        "tokens": rng.normal(size=(2, 4, len(result.token_ids))) if tokens else None,
        "reasons": {2: reason, 3: reason},
        "router_weights": np.array([[0.3, np.nan] * 2 + [1.0]] * 2) if router else None,
    }
    return replace(result, components=Components(**given | but))


def assert_same_components(found, expected):
    for name, value in vars(expected).items():
        other = getattr(found, name)
        if isinstance(value, np.ndarray):
            assert other.dtype == value.dtype, name
            np.testing.assert_array_equal(other, value, err_msg=name)
        else:
            assert other == value, name


@pytest.mark.parametrize("extension", ["json", "safetensors"])
@pytest.mark.parametrize("tokens", [True, False])
@pytest.mark.parametrize("router", [True, False])
@pytest.mark.parametrize("reason", ["it is no attention", *HOSTILE])
def test_every_bit_comes_back(tmp_path, extension, tokens, router, reason):
    result = opened(tokens=tokens, router=router, reason=reason)
    result.save(tmp_path / f"x.{extension}")
    found = Attribution.load(tmp_path / f"x.{extension}").components
    assert_same_components(found, result.components)


@pytest.mark.parametrize("extension", ["json", "safetensors"])
def test_nothing_inside_stays_nothing(tmp_path, extension):
    make_attribution().save(tmp_path / f"x.{extension}")
    assert Attribution.load(tmp_path / f"x.{extension}").components is None


def test_json_fits_the_schema_and_adds_up_by_itself():
    result = opened()
    document = json.loads(json.dumps(attribution_to_json(result), allow_nan=False))
    Draft202012Validator(SCHEMA).validate(document)
    inside = document["components"]
    assert set(inside) == set(SCHEMA["properties"]["components"]["properties"])
    assert [numbers[2] for numbers in inside["index"]] == [None, None]
    assert len(inside["source"]) == 1  # the same for all rows
    assert inside["certificate"]["residual"][0][2] is None
    for row in range(2):
        sums = list(inside["others"][row])
        for segment, credit in zip(
            inside["segment"], inside["credits"][row], strict=True
        ):
            sums[segment] += credit
        np.testing.assert_allclose(sums, result.components.totals[row], atol=1e-15)


@pytest.fixture
def document():
    return attribution_to_json(opened())


def refused(document):
    """The one line that a document is refused with."""
    with pytest.raises(ArtifactError) as caught:
        attribution_from_json(document)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "field", [*LISTS, "by", "certificate", "reasons", "certificate.residual"]
)
def test_a_missing_field_is_named(document, field):
    place, _, name = f"components.{field}".rpartition(".")
    inner = document
    for step in place.split("."):
        inner = inner[step]
    del inner[name]
    assert name in refused(document)


@pytest.mark.parametrize("field", [name for name in LISTS if name != "source"])
def test_a_list_of_another_length_is_refused(document, field):
    entries = document["components"][field]
    entries.append(entries[0])
    refused(document)


@pytest.mark.parametrize("field", ["index", "source"])
def test_numbers_of_too_few_parts_are_refused(document, field):
    for numbers in document["components"][field]:
        numbers.pop()
    assert field in refused(document)


def test_one_list_of_numbers_for_three_rows_or_three_for_two(document):
    document["components"]["source"] *= 3
    assert "`components.source` has 3 lists; the 2 rows call for" in refused(document)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("segment", [0, 0, 0, 1, "one"]),
        ("segment", [0, 0, 0, 1, 0.5]),
        ("kind", ["head", "head", "bias", "source", 7]),
        ("index", [[0, 3, None, 2, "x"]]),
        ("index", [0, 3, None, 2, 2]),
        ("source", 7),
        ("router_weights", [[0.5] * 5]),
        ("credits", [["much"] * 5] * 2),
        ("credits", 3),
        ("certificate", []),
        ("tokens", [[[0.0]]]),
        ("by", None),
        ("reasons", [{"segment": 0}]),
    ],
)
def test_a_field_of_another_kind_is_refused(document, field, value):
    document["components"][field] = value
    refused(document)


@pytest.mark.parametrize("segment", [-1, 4, 1000])
def test_a_part_of_no_segment_is_refused(document, segment):
    document["components"]["segment"][0] = segment
    said = refused(document)
    assert "segment" in said


def damaged(tmp_path, change):
    """A safetensors file of a result whose arrays were changed."""
    path = tmp_path / "x.safetensors"
    opened().save(path)
    tensors = safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, "numpy") as file:
        words = dict(file.metadata())
    change(tensors)
    safetensors.numpy.save_file(tensors, path, words)
    return path


@pytest.mark.parametrize("name", ARRAYS)
def test_a_missing_array_is_named(tmp_path, name):
    path = damaged(tmp_path, lambda tensors: tensors.pop(f"{PREFIX}{name}"))
    with pytest.raises(ArtifactError, match=f"`{PREFIX}{name}` is missing"):
        Attribution.load(path)


@pytest.mark.parametrize("name", [*ARRAYS, *OPTIONAL])
@pytest.mark.parametrize("how", ["shape", "kind"])
def test_an_array_that_does_not_fit_is_named_with_what_it_is(tmp_path, name, how):
    def change(tensors):
        array = tensors[f"{PREFIX}{name}"]
        if how == "kind":
            tensors[f"{PREFIX}{name}"] = array.astype(np.complex64)
        else:
            tensors[f"{PREFIX}{name}"] = np.ascontiguousarray(array[..., :-1])

    with pytest.raises(ArtifactError, match=name) as caught:
        Attribution.load(damaged(tmp_path, change))
    assert "\n" not in str(caught.value)


def test_a_part_of_no_segment_is_refused_in_safetensors_too(tmp_path):
    def change(tensors):
        tensors[f"{PREFIX}segments"][0] = 99

    with pytest.raises(ArtifactError, match="a segment that does not exist"):
        Attribution.load(damaged(tmp_path, change))


def test_the_document_of_a_result_is_not_changed_by_reading_it(document):
    before = copy.deepcopy(document)
    attribution_from_json(document)
    assert document == before


def test_every_field_is_on_the_json_page():
    page = (Path(__file__).parents[2] / "docs/json.md").read_text()
    section = page.split("## Components")[1].split("\n## ")[0]
    fields = SCHEMA["properties"]["components"]["properties"]
    fields = [*fields, *fields["certificate"]["properties"]]
    assert [name for name in fields if f"`{name}`" not in section] == []
    kinds = re.findall(r'"([a-z ]+)"', fields_of("kind"))
    assert len(kinds) > 9
    assert [kind for kind in kinds if f'`"{kind}"`' not in section] == []


def fields_of(name):
    """What the schema says of a field of components."""
    found = SCHEMA["properties"]["components"]["properties"][name]
    return found["description"]
