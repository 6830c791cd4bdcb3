"""The published schemas of what `iglens explain --json` prints besides the map."""

import json
from importlib.resources import files

import pytest
import torch
from jsonschema import Draft202012Validator
from toys import make_head
from toys import make_trace as trace_of

import iglens
from iglens.attribution import flows, promotion
from iglens.cli.main import run
from iglens.records import Target
from iglens.storage.json_reader import attribution_from_json

NAMES = ("answer", "flow", "promotion", "sensitivity", "interaction")
FIRST = {"answer": "credits", "sensitivity": "baseline", "interaction": "alone"}
TEXT = "The capital of France is"


def schema(name):
    return json.loads((files("iglens.data") / f"{name}.schema.json").read_text())


def assert_described(document, name):
    """The document fits, has no field without a description, and holds no NaN."""
    found = schema(name)
    Draft202012Validator(found).validate(document)
    assert set(document) == set(found["properties"])
    json.dumps(document, allow_nan=False)


@pytest.fixture(scope="module")
def printed(tiny_folder):
    """What the command prints of an answer with everything that can be asked."""
    import io
    from contextlib import redirect_stdout

    out = io.StringIO()
    asked = ["--answer", " Rome is", "--rivals", "2", "--promotion", "--sensitivity"]
    asked += ["--by", "sublayer", "--interaction"]
    with redirect_stdout(out):
        code = run(
            ["explain", TEXT, "-m", str(tiny_folder), "--json", "--quiet", *asked]
        )
    assert code == 0
    return json.loads(out.getvalue())


@pytest.fixture(scope="module")
def documents(printed):
    """Every form by its name; the answer's by itself, as Python gives it."""
    alone = attribution_from_json(printed).answer().to_json()
    assert alone.items() >= printed["answer"].items()
    return {name: printed[name] for name in NAMES} | {"answer": alone}


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_one_and_describes_every_field(name):
    def lacking(part, path):
        for field, entry in part.get("properties", {}).items():
            if not entry.get("description"):
                yield f"{path}.{field}"
            yield from lacking(entry, f"{path}.{field}")
        if isinstance(part.get("items"), dict):
            yield from lacking(part["items"], f"{path}[]")

    found = schema(name)
    Draft202012Validator.check_schema(found)
    assert found["$id"] == f"urn:iglens:{name}:1"
    assert found["properties"]["schema"]["const"] == f"iglens.{name}/1"
    assert set(found["required"]) == set(found["properties"])
    assert not list(lacking(found, name))


@pytest.mark.parametrize("name", NAMES)
def test_what_the_command_prints_fits_its_schema(documents, name):
    assert_described(documents[name], name)


def test_the_whole_document_fits_the_schema_of_a_map(printed):
    found = schema("attribution")
    Draft202012Validator(found).validate(printed)
    assert set(printed) == set(found["properties"])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("field", ["schema", "baseline", "levels", "log_levels"])
def test_a_document_without_a_field_is_refused(documents, name, field):
    if field in documents[name]:
        without = {k: v for k, v in documents[name].items() if k != field}
        assert not Draft202012Validator(schema(name)).is_valid(without)


@pytest.mark.parametrize("name", NAMES)
def test_text_in_the_place_of_a_number_is_refused(documents, name):
    field = FIRST.get(name, "levels")
    odd = json.loads(json.dumps(documents[name]))
    odd[field][0][0] = "much"
    assert not Draft202012Validator(schema(name)).is_valid(odd)


def test_every_field_is_on_the_json_page():
    from pathlib import Path

    page = (Path(__file__).parents[2] / "docs/json.md").read_text()
    for name in NAMES:
        assert [f for f in schema(name)["properties"] if f"`{f}`" not in page] == []


@pytest.mark.parametrize("ask", [flows, promotion])
def test_states_that_are_not_finite_become_null_and_still_fit(ask):
    trace = trace_of(make_head())
    odd = trace.states.clone()
    odd[2, 1] = torch.nan
    found = ask(
        trace.with_states(odd, trace.logits), Target((3,), "<3>"), strict=False
    ).to_json()
    assert None in found["levels"][1]
    assert found["flags"]
    name = found["schema"].removeprefix("iglens.").removesuffix("/1")
    assert_described(found, name)


def test_rows_of_other_units_name_theirs_in_a_sensitivity(tiny_folder):
    decoder = iglens.Decoder.from_pretrained(tiny_folder)
    asked = iglens.prepare(decoder, TEXT, target=[" Paris", "@entropy"])
    found = iglens.Reader().sensitivity(decoder, asked)
    assert_described(found.to_json(), "sensitivity")
    assert found.to_json()["units"] == ["probability", "nats"]
    lines = str(found).splitlines()
    own, entropy = (
        [line for line in lines if f"'{name}' at " in line]
        for name in (" Paris", "entropy")
    )
    assert len(own) == len(entropy) == 3
    assert all(line.endswith(" nats") for line in entropy)
    assert not any("nats" in line for line in own)


def test_a_small_credit_of_the_embedding_is_no_zero(tiny_folder):
    decoder = iglens.Decoder.from_pretrained(tiny_folder)
    asked = iglens.prepare(decoder, TEXT, target=" Paris")
    found = iglens.Reader().sensitivity(decoder, asked)
    first = float(found.first[0, found.kinds.index("zero")])
    assert 0 < abs(first) < 0.01
    assert f"{'-' if first < 0 else '+'}{abs(first):.1g}" in str(found)
