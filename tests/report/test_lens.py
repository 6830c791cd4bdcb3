"""The table of a lens against the raw states."""

import json
import re

import pytest

from iglens.report.lens import lens_table


def scores(**but):
    return {
        "kl_bits": 3.25,
        "kl_error": 0.1,
        "bias_bits": 1.5,
        "agreement": 0.125,
    } | but


def evaluation(*layers, **but):
    about = {"lens": "ridge", "tokens": 1024, "documents": 16, "source": "a.txt"}
    entries = [
        {"layer": layer, "raw": raw, "fitted": fitted} for layer, raw, fitted in layers
    ]
    return about | {"layers": entries} | but


def rows(table):
    """The lines below the two of the heading, as words."""
    return [line.split() for line in table.splitlines()[4:]]


def test_every_layer_has_a_line_of_raw_and_fitted_numbers():
    found = evaluation(
        (0, scores(kl_bits=141.9537), scores(kl_bits=5.404)),
        (29, scores(agreement=0.59), scores(kl_bits=0.334, agreement=0.801)),
    )
    table = lens_table(found)
    assert table.splitlines()[0] == (
        "Lens ridge, judged at 1024 tokens of 16 documents (a.txt)"
    )
    assert rows(table) == [
        ["0", "141.95", "5.40", "1.50", "1.50", "12.5%", "12.5%"],
        ["29", "3.25", "0.33", "1.50", "1.50", "59.0%", "80.1%"],
    ]


def test_units_and_sides_are_named_over_their_columns():
    lines = lens_table(evaluation((7, scores(), scores()))).splitlines()
    groups, sides, numbers = lines[2:5]
    assert [g.strip() for g in groups.split("  ") if g.strip()] == [
        "KL, bits",
        "bias, bits",
        "top-1",
    ]
    assert sides.split() == ["layer", *["raw", "fitted"] * 3]
    ends = [[m.end() for m in re.finditer(r"\S+", line)] for line in (sides, numbers)]
    assert ends[0] == ends[1]  # numbers end where the words above them end


def test_one_document_is_one():
    table = lens_table(evaluation((7, scores(), scores()), tokens=1, documents=1))
    assert "judged at 1 token of 1 document (a.txt)" in table


@pytest.mark.parametrize("name", ["kl_bits", "bias_bits", "agreement"])
def test_a_number_that_is_none_is_marked_and_no_zero(name):
    found = evaluation((3, scores(), scores(**{name: None})))
    (row,) = rows(lens_table(found))
    assert row.count("n/a") == 1
    assert row.index("n/a") == {"kl_bits": 2, "bias_bits": 4, "agreement": 6}[name]


def test_no_line_ends_in_spaces():
    table = lens_table(evaluation((3, scores(), scores(agreement=None))))
    assert [line for line in table.splitlines() if line != line.rstrip()] == []


def test_what_an_evaluation_writes_is_what_the_table_reads():
    import numpy as np

    from iglens import LensEvaluation
    from iglens.explaining.lenses.scores import LensScores

    raw, fitted = (
        LensScores(*(np.array([x, np.nan]) for x in (kl, 0.1, 0.5, 0.25)))
        for kl in (2.0, 1.0)
    )
    found = LensEvaluation(
        lens="ridge",
        layers=(0, 1),
        raw=raw,
        fitted=fitted,
        tokens=9,
        documents=2,
        source="a.txt",
    )
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert rows(lens_table(document)) == [
        ["0", "2.00", "1.00", "0.50", "0.50", "25.0%", "25.0%"],
        ["1", *["n/a"] * 6],
    ]
