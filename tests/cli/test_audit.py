"""`iglens audit`: every form of output, and what it refuses."""

import csv
import json
from importlib.resources import files

import pytest
from families import TEXT
from jsonschema import Draft202012Validator

from iglens.cli.main import run

OTHER = "Rome is the capital of"


@pytest.fixture
def audited(tiny_folder, capsys):
    def call(*arguments):
        code = run(["audit", *arguments, "-m", str(tiny_folder)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_json_fits_its_schema_and_says_everything(audited):
    code, out, _ = audited(
        TEXT, OTHER, "--json", "--gates", "--curves", "--quiet", "--by", "sublayer",
        "--nulls", "both",
    )  # fmt: skip
    assert code == 0
    document = json.loads(out)
    schema = json.loads((files("iglens.data") / "audit.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(document)
    assert set(document) == set(schema["properties"]) == set(schema["required"])
    assert len(document["texts"]) == len(document["effects"]["values"]) == 2
    assert len(document["effects"]["values"][0]) == len(document["labels"]) == 6
    for text in range(2):
        assert sum(document["ledger"][text]) == pytest.approx(0, abs=1e-5)
        last = document["effects"]["values"][text][-1]
        assert last == pytest.approx(document["credits"][text][-1], abs=1e-6)


def test_the_table_says_what_was_done_and_files_hold_the_numbers(audited, tmp_path):
    out_json, out_csv = tmp_path / "a.json", tmp_path / "a.csv"
    arguments = ["--target", " Paris", "--at", "last", "--ablation", "mean"]
    code, out, err = audited(
        TEXT, OTHER, *arguments, "-o", str(out_json), "-o", str(out_csv)
    )
    assert code == 0
    said = " ".join(out.split())
    assert "2 texts · every segment replaced by its mean update at the last" in said
    assert "Spearman with effect all layers without the last" in said
    assert "credit" in said
    assert "Self-test:" in said
    assert "Runs …" in err
    document = json.loads(out_json.read_text())
    lines = list(csv.DictReader(out_csv.read_text().splitlines()))
    assert [float(line["effect"]) for line in lines] == pytest.approx(
        [value for row in document["effects"]["values"] for value in row]
    )
    assert [line["token"] for line in lines] == [" Paris"] * 6


def test_methods_are_lines_of_the_table_and_of_the_json(audited):
    code, out, err = audited(TEXT, OTHER, "--methods", "dla,tuned-lens,gate-path")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "tuned-lens: not here" in out
    assert "Methods …" in err
    code, out, _ = audited(TEXT, "--methods", "dla", "--quiet", "--json")
    methods = {one["method"] for one in json.loads(out)["correlations"]}
    assert methods == {"credit", "update size", "dla"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([TEXT, "--by", "head"], "layer or sublayer"),
        ([TEXT, "--at", "nowhere"], "all, last"),
        ([TEXT, "-o", "out.gif"], ".gif"),
        ([TEXT, "--target", "@entropy"], "tokens, sets of them"),
        ([TEXT, "--nulls", "guesses"], "random-weights, both, none"),
        ([TEXT, "--methods", "guesses"], "known are all"),
        ([TEXT, "--methods", "dla", "--by", "sublayer"], "effects of layers"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(audited, arguments, message):
    code, out, err = audited(*arguments, "--quiet")
    assert code == 2
    assert out == ""
    assert message in err
