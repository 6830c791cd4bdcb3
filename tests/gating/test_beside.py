"""`iglens.gates`: effects beside credits, certified or refused, in every form."""

import csv
import json
from importlib.resources import files

import classifiers
import numpy as np
import pytest
import torch
from families import build, left_as_it_was, some_ids
from jsonschema import Draft202012Validator

import iglens
from iglens.model.decoder import Decoder

SCHEMA = json.loads((files("iglens.data") / "effects.schema.json").read_text())
IDS = some_ids(6)


@pytest.fixture(scope="module")
def decoder():
    return Decoder(build("llama"))


def test_rows_are_tokens_of_the_text_each_with_its_own_path(decoder):
    found = iglens.gates(decoder, IDS, positions="all", max_new_tokens=0)
    result = iglens.explain(decoder, IDS, positions="all", max_new_tokens=0)
    assert found.positions == tuple(result.positions.tolist())
    assert np.allclose(found.credits, result.credits, atol=1e-9)
    assert np.allclose(found.intact, result.final, atol=1e-6)
    assert np.allclose(found.removed, result.baseline, atol=1e-6)
    for row, position in enumerate(found.positions):
        alone = iglens.gates(decoder, IDS[:position], target=IDS[position])
        assert alone.effects[0] == pytest.approx(found.effects[row], abs=1e-4)


@pytest.mark.parametrize("unit", ["probability", "log_probability", "log_odds"])
@pytest.mark.parametrize("contrast", [None, 9])
def test_effects_and_credits_have_the_same_total_in_every_unit(decoder, unit, contrast):
    found = iglens.gates(
        decoder, IDS, target=[5, 7], contrast=contrast, unit=unit, by="sublayer"
    )
    assert found.effects.shape == (2, 6)
    assert np.abs(found.ledger.sum(1)).max() < 2e-5
    assert np.abs(found.ledger).max() > 1e-4
    assert found.certified.all()


def test_the_model_is_left_as_it_was():
    model = build("gpt2")
    with left_as_it_was(model):
        iglens.gates(Decoder(model), IDS, target=5)


def test_a_classifier_has_gates_too():
    model = classifiers.build("llama", 3)
    found = iglens.gates(Decoder(model), IDS)
    assert np.abs(found.ledger.sum(1)).max() < 1e-5


def test_what_cannot_be_certified_is_refused_or_told(decoder):
    given = {"target": 5, "tolerance": 1e-30}
    with pytest.raises(iglens.FidelityError, match="not certified to 1e-30"):
        iglens.gates(decoder, IDS, **given)
    found = iglens.gates(decoder, IDS, **given, strict=False)
    assert not found.certified.any()
    assert "not certified" in found.warnings[-1]
    assert "NOT certified" in str(found)
    good = iglens.gates(decoder, IDS, target=5)
    assert good.warnings == good.results[0].warnings
    assert "\nCertified" in str(good)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"by": "head"}, "layer or sublayer"),
        ({"tolerance": 0.0}, "above 0"),
        ({"target": "@entropy"}, "tokens, sets of them"),
    ],
)
def test_what_has_no_gates_is_refused(decoder, given, message):
    with pytest.raises(iglens.ArgumentError, match=message):
        iglens.gates(decoder, IDS, **{"target": 5} | given)


@pytest.fixture(scope="module")
def several(decoder):
    return iglens.gates(decoder, IDS, target=[5, 7])


def test_the_json_fits_its_schema_with_every_field_described(several):
    Draft202012Validator.check_schema(SCHEMA)
    document = several.to_json()
    Draft202012Validator(SCHEMA).validate(document)
    assert set(document) == set(SCHEMA["properties"]) == set(SCHEMA["required"])
    assert all(entry.get("description") for entry in SCHEMA["properties"].values())
    assert document["text"] == [0, 0]
    for field in ("values", "certified", "texts"):
        odd = {k: v for k, v in document.items() if k != field}
        assert not Draft202012Validator(SCHEMA).is_valid(odd)


def test_tables_and_pages_hold_every_number(several, tmp_path):
    for form in ("json", "csv", "parquet", "md", "html"):
        several.save(tmp_path / f"found.{form}")
    lines = list(csv.DictReader((tmp_path / "found.csv").read_text().splitlines()))
    assert [float(line["ledger"]) for line in lines] == several.ledger.ravel().tolist()
    assert [line["token"] for line in lines] == ["<5>"] * 3 + ["<7>"] * 3
    for form in ("md", "html"):
        page = (tmp_path / f"found.{form}").read_text()
        assert all(f"{value:+.3f}" in page for value in several.effects.ravel())
    assert "http:" not in (tmp_path / "found.html").read_text()
    with pytest.raises(iglens.OutputError, match="gif"):
        several.save(tmp_path / "found.gif")


def test_numbers_that_are_none_are_null_and_marked(several, tmp_path):
    from dataclasses import replace

    effects = several.effects.copy()
    effects[0, 1] = np.nan
    odd = replace(several, effects=effects, closed=np.array([np.nan, 0.0]))
    document = odd.to_json()
    Draft202012Validator(SCHEMA).validate(document)
    assert document["values"][0][1] is None
    assert odd.certified.tolist() == [False, True]
    apart = replace(several, closed=np.zeros(2), apart=np.array([1e-5, 1e-3]))
    assert apart.certified.tolist() == [True, False]
    assert "nan" in odd.text("md")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_are_as_good_as_they_can_be(dtype):
    decoder = Decoder(build("llama", dtype=dtype))
    found = iglens.gates(decoder, IDS, target=5, strict=False)
    limit = 1e-9 if dtype == torch.float64 else 0.02
    assert np.abs(found.ledger.sum(1)).max() < limit
