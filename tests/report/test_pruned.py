"""How results show what was finished early: as a bound, without a sign."""

import json
from dataclasses import replace

import numpy as np
import pytest
from factories import assert_same, make_attribution
from safetensors.numpy import load, save

from iglens.records import Target
from iglens.report.charts import attribution_figure
from iglens.report.html import mime_bundle
from iglens.report.markdown import markdown_page
from iglens.report.page.payload import payload
from iglens.report.text import credit_of, level_of
from iglens.storage import attribution_from_json, attribution_to_json
from iglens.storage.json_form import json_bytes
from iglens.storage.safetensors_form import from_safetensors_bytes, safetensors_bytes

BELOW = "< 6e-08"


@pytest.fixture
def result():
    """One row that rises late, with bounds at its second and third point."""
    levels = np.array([[1e-9, 5e-8, 4e-8, 3e-8, 0.25, 0.5]] * 2)
    found = make_attribution(rows=2, n_layers=5, unit="probability")
    pruned = np.zeros_like(levels, dtype=bool)
    pruned[0, 1:4] = True
    return replace(
        found,
        targets=(Target((3,), " Paris"), Target((4,), " Rome")),
        levels=levels,
        credits=np.diff(levels, axis=1),
        writes=np.diff(levels, axis=1),
        pruned=pruned,
        readout=replace(found.readout, pruned_below=2.0**-24),
        flags=(),
    )


def test_credits_have_no_sign_where_both_ends_are_small_and_one_is_a_bound(result):
    assert result.unsigned.tolist() == [
        [True, True, True, False, False],
        [False] * 5,
    ]
    assert [level_of(result, 0, point) for point in range(6)] == [
        "1e-09",
        BELOW,
        BELOW,
        BELOW,
        "0.25",
        "0.50",
    ]
    assert [credit_of(result, 0, at) for at in range(5)] == [BELOW] * 3 + ["+0.250"] * 2
    assert [credit_of(result, 1, at) for at in (0, 3)] == ["+0.000", "+0.250"]


def test_nothing_is_unsigned_where_nothing_was_pruned():
    assert not make_attribution(rows=4).unsigned.any()


def test_markdown_shows_bounds(result):
    page = markdown_page(result)
    assert page.count(r"\< 6e-08") == 3
    assert page.count("+0.250") == 4


def test_the_table_of_notebooks_shows_bounds(result):
    html = mime_bundle(result)["text/html"]
    assert html.count("<td>&lt; 6e-08</td>") == 3


@pytest.mark.parametrize(("kind", "texts"), [("map", 3), ("levels", 3)])
def test_charts_tell_bounds(result, kind, texts):
    told = str(attribution_figure(result, kind, row=0, theme="light").to_dict())
    assert told.count(f"'{BELOW}'") == texts


def test_the_page_is_told_below_what_there_are_bounds(result):
    assert payload(result)["prunedBelow"] == 2.0**-24
    plain = replace(result, pruned=np.zeros_like(result.pruned))
    assert payload(plain)["prunedBelow"] == 0


def test_both_complete_forms_keep_what_was_pruned(result):
    assert_same(from_safetensors_bytes(safetensors_bytes(result)), result)
    again = attribution_from_json(attribution_to_json(result))
    assert np.array_equal(again.pruned, result.pruned)
    assert again.readout.pruned_below == 2.0**-24
    assert json_bytes(again) == json_bytes(result)


def test_files_of_before_are_read_as_read_in_full(result):
    document = attribution_to_json(result)
    del document["pruned"]
    del document["readout"]["pruned_below"]
    found = attribution_from_json(document)
    assert not found.pruned.any()
    assert found.pruned.shape == result.levels.shape
    assert found.readout.pruned_below == 0.0


def test_safetensors_of_before_are_read_as_read_in_full(result):
    written = safetensors_bytes(replace(result, pruned=np.zeros_like(result.pruned)))
    tensors = load(written)
    del tensors["pruned"]
    length = int.from_bytes(written[:8], "little")
    metadata = json.loads(written[8 : 8 + length])["__metadata__"]
    found = from_safetensors_bytes(save(tensors, metadata))
    assert not found.pruned.any()
    assert found.pruned.shape == result.levels.shape


def test_tables_say_which_levels_are_bounds(result):
    table = result.to_arrow()
    assert table["pruned"].to_pylist() == [True] * 3 + [False] * 7
