from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from factories import HOSTILE, make_attribution, recipes
from hypothesis import given, settings

from iglens.records.table import tidy_table

COLUMNS = {
    "prompt": pa.string(),
    "position": pa.int64(),
    "token": pa.string(),
    "unit": pa.string(),
    "layer": pa.int64(),
    "component": pa.string(),
    "level": pa.float64(),
    "credit": pa.float64(),
    "write": pa.float64(),
    "baseline": pa.float64(),
    "final": pa.float64(),
    "model_value": pa.float64(),
    "fidelity": pa.float64(),
    "module": pa.string(),
    "row": pa.int64(),
    "inside": pa.string(),
    "index": pa.int64(),
    "source": pa.int64(),
    "router_weight": pa.float64(),
    "pruned": pa.bool_(),
}


@given(recipe=recipes())
@settings(deadline=None)
def test_columns_and_their_types_are_the_same_for_every_result(recipe):
    result = make_attribution(**recipe)
    schema = tidy_table(result).schema
    assert dict(zip(schema.names, schema.types, strict=True)) == COLUMNS
    assert schema.names == list(COLUMNS)


@given(recipe=recipes())
@settings(deadline=None)
def test_there_is_one_line_per_row_and_segment_in_path_order(recipe):
    result = make_attribution(**recipe)
    table = tidy_table(result).to_pydict()
    n = len(result.segments)
    assert table["row"] == [row for row in range(result.n_rows) for _ in range(n)]
    assert table["layer"] == list(result.layers) * result.n_rows
    assert table["component"] == [s.part for s in result.segments] * result.n_rows
    assert table["module"] == [s.module for s in result.segments] * result.n_rows


@given(recipe=recipes())
@settings(deadline=None)
def test_a_line_holds_its_own_numbers(recipe):
    result = make_attribution(**recipe)
    table = tidy_table(result).to_pydict()
    for line, row in enumerate(table["row"]):
        segment = line % len(result.segments)
        expected = {
            "level": result.levels[row, segment + 1],
            "credit": result.credits[row, segment],
            "write": result.writes[row, segment],
            "baseline": result.baseline[row],
            "final": result.final[row],
            "model_value": result.model_value[row],
            "fidelity": result.fidelity[row],
            "position": result.positions[row],
        }
        found = {name: table[name][line] for name in expected}
        np.testing.assert_equal(found, expected)
        assert table["token"][line] == result.targets[row].name
        assert table["unit"][line] == result.units[row]
        assert table["prompt"][line] == result.provenance.prompt


def test_baseline_and_summed_credits_are_the_final_level_in_every_row():
    frame = make_attribution(rows=5, baseline="mean").to_pandas()
    for _, lines in frame.groupby("row"):
        total = lines["baseline"].iloc[0] + lines["credit"].sum()
        assert total == pytest.approx(lines["final"].iloc[0], abs=1e-12)


def test_a_prompt_that_was_no_text_is_null():
    result = make_attribution()
    provenance = replace(result.provenance, prompt=None)
    table = tidy_table(replace(result, provenance=provenance))
    assert set(table["prompt"].to_pylist()) == {None}


def test_no_row_gives_the_same_columns():
    table = tidy_table(make_attribution().select([]))
    assert table.num_rows == 0
    assert dict(zip(table.schema.names, table.schema.types, strict=True)) == COLUMNS


def test_half_a_character_becomes_a_question_mark():
    table = tidy_table(make_attribution(texts=("a\ud800",)))
    assert set(table["token"].to_pylist()) == {"a?"}


def test_token_text_is_kept_as_it_is():
    result = make_attribution(rows=len(HOSTILE), texts=HOSTILE)
    tokens = tidy_table(result)["token"].to_pylist()
    assert tokens[:: len(result.segments)] == [t.text for t in result.targets]
    assert set(tokens) == set(HOSTILE)
