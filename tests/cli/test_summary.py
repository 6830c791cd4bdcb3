"""`iglens summary`: every form of output, and what it refuses."""

import csv
import json
from importlib.resources import files

import pytest
from jsonschema import Draft202012Validator
from stores import Made, made_up

from iglens.cli.main import run


@pytest.fixture
def folder(tmp_path):
    made_up(seed=1).write(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def summed(capsys):
    def call(*arguments):
        code = run(["summary", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_the_first_sentence_answers_the_question(summed, folder, tmp_path):
    rows = made_up(seed=1).rows
    for row in rows:
        row["credits"] = [0.0, 0.1, 0.4 + 0.01 * (row["index"] % 5), 0.1]
        row["levels"] = [0.0, 0.0, 0.1, *[0.5 + 0.01 * (row["index"] % 5)] * 2]
        row["levels"][-1] += 0.1
    made = made_up(seed=1)
    Made(rows, made.segments, made.types).write(tmp_path / "sure")
    code, out, _ = summed(tmp_path / "sure")
    assert code == 0
    said = " ".join(out.split())
    assert (
        "Over 30 prompts (88 tokens), half of the probability became readable between "
        "layers 2 and 3 (0.00 to 0.62)." in said
    )
    assert "Mean probability at the end: 0.62 [0.6" in said
    code, out, _ = summed(folder)
    assert "beyond what other prompts would" in " ".join(out.split())


def test_json_fits_its_schema_and_summary_json_is_the_same(summed, folder):
    code, out, _ = summed(folder, "--json", "--quiet")
    assert code == 0
    schema = json.loads((files("iglens.data") / "summary.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(json.loads(out))
    assert json.loads((folder / "summary.json").read_text()) == json.loads(out)


@pytest.mark.parametrize(
    "options", [["--slice", "correct"], ["--level", "0.9"], ["--seed", "1"]]
)
def test_only_the_usual_summary_is_kept_in_the_run(summed, folder, options):
    assert summed(folder, *options)[0] == 0
    assert not (folder / "summary.json").exists()


def test_a_run_that_cannot_be_written_to_is_summed_up_all_the_same(
    summed, folder, monkeypatch
):
    (folder / "summary.json").mkdir()
    code, out, err = summed(folder)
    assert code == 0
    assert "Over 30 prompts" in out
    assert "summary.json was not brought up to date" in err


def test_options_reach_the_statistics(summed, folder, tmp_path):
    made_up(seed=2, null={"of": "targets", "seed": 0}).write(tmp_path / "null")
    code, out, _ = summed(
        folder, "--slice", "correct", "--slice", "relation", "--null",
        tmp_path / "null", "--level", 0.8, "--bootstrap", 150, "--seed", 4, "--json",
    )  # fmt: skip
    assert code == 0
    found = json.loads(out)
    assert [one["column"] for one in found["slices"]] == ["correct", "relation"]
    assert (found["level"], found["n_replicates"], found["seed"]) == (0.8, 150, 4)
    assert found["null"]["of"] == "targets"


def test_every_file_is_written(summed, folder, tmp_path):
    names = ["a.json", "a.csv", "a.parquet", "a.md", "a.html", "a.svg", "a.png"]
    places = [tmp_path / name for name in [*names, "a.pdf"]]
    options = [part for place in places for part in ("-o", place)]
    code, _, err = summed(folder, *options, "--slice", "correct", "--figure", "slices")
    assert code == 0
    assert all(place.stat().st_size > 500 and place.name in err for place in places)
    lines = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    found = json.loads((tmp_path / "a.json").read_text())
    own = [float(line["credit"]) for line in lines if line["column"] == ""]
    assert own == pytest.approx(found["whole"][0]["credits"]["mean"])
    assert "Over 30 prompts" in (tmp_path / "a.md").read_text()
    page = (tmp_path / "a.html").read_text()
    assert "Over 30 prompts" in page
    assert "correct" in (tmp_path / "a.svg").read_text()


def test_text_of_the_input_is_shown_and_does_not_become_markup(
    summed, tmp_path, capsys
):
    made = made_up(seed=1)
    odd = "<script>x</script>|\x1b[31m\u202e"
    rows = [{**row, "relation": odd} for row in made.rows]
    Made(rows, made.segments, made.types).write(tmp_path / "odd")
    places = [tmp_path / name for name in ("a.html", "a.md", "a.svg")]
    options = [part for place in places for part in ("-o", place)]
    code, out, _ = summed(tmp_path / "odd", "--slice", "relation", *options)
    assert code == 0
    assert "\x1b" not in out
    assert "\\x1b" in out
    for place in places[:2]:
        text = place.read_text()
        assert "<script>x" not in text.replace(r"\<", "&lt;")
        assert "\x1b" not in text
        assert "\u202e" not in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--slice", "nothing"], "'nothing'"),
        (["--level", "2"], "`level` is 2"),
        (["--bootstrap", "3"], "`bootstrap` is 3"),
        (["--figure", "none", "-o", "x.svg"], "known are credits"),
        (["-o", "x.docx"], ".docx"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    summed, folder, arguments, said, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, out, err = summed(folder, *arguments)
    assert (code, out) == (2, "")
    line = err.strip().splitlines()[-1]
    assert line.startswith("iglens: ")
    assert said in line


def test_a_folder_without_a_run_is_refused(summed, tmp_path):
    code, _, err = summed(tmp_path)
    assert code == 2
    assert "holds no run of iglens" in err
