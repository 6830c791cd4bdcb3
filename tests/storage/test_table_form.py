import csv
import io
import json

import numpy as np
import pyarrow.parquet as parquet
from factories import HOSTILE, make_attribution, recipes
from hypothesis import given, settings

from iglens.storage.table_form import csv_bytes, parquet_bytes


@given(recipe=recipes())
@settings(deadline=None)
def test_parquet_holds_the_tidy_table(recipe):
    result = make_attribution(**recipe)
    table = parquet.read_table(io.BytesIO(parquet_bytes(result)))
    expected = result.to_arrow()
    assert table.schema.equals(expected.schema)
    for name in table.schema.names:
        found = table[name].to_pylist()
        np.testing.assert_equal(found, expected[name].to_pylist())


def test_parquet_says_which_model_it_is_about():
    metadata = parquet.read_schema(
        io.BytesIO(parquet_bytes(make_attribution()))
    ).metadata
    assert metadata[b"iglens.schema"] == b"iglens.attribution/1"
    header = json.loads(metadata[b"iglens"])
    assert header["model"]["id"] == "a/model"
    assert header["versions"] == {"iglens": "0", "torch": "0"}
    assert header["unit"] == "probability"


def test_csv_holds_every_digit_and_every_character():
    texts = tuple(text.replace("\x00", "") for text in HOSTILE)
    result = make_attribution(rows=8, texts=texts, holes=[(0, 2, np.nan)])
    lines = list(csv.DictReader(io.StringIO(csv_bytes(result).decode(), newline="")))
    expected = result.to_arrow().to_pylist()
    assert len(lines) == len(expected)
    for line, values in zip(lines, expected, strict=True):
        assert list(line) == list(values)
        assert line["token"] == values["token"]
        for name in ("credit", "level", "baseline", "final"):
            np.testing.assert_equal(float(line[name]), values[name])


def test_half_characters_do_not_stop_the_tables():
    result = make_attribution(texts=("\ud800",))
    assert b"?" in csv_bytes(result)
    assert parquet_bytes(result)
