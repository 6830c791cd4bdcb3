"""`iglens diff` of two runs: every form of output, and what it refuses."""

import csv
import json
from importlib.resources import files

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from stores import Made, made_up

from iglens.cli.main import run


@pytest.fixture
def runs(tmp_path):
    """A run, and the same tokens with more credit at layer 2."""
    made = made_up(seed=1)
    rng, rows = np.random.default_rng(0), []
    for row in made.rows:
        credits = np.array(row["credits"])
        credits[1] += 0.2 + rng.normal(0, 0.05)
        levels = [0.0, *np.cumsum(credits).tolist()]
        rows.append({**row, "credits": credits.tolist(), "levels": levels}
                    | {"final": levels[-1]})  # fmt: skip
    made.write(tmp_path / "a")
    Made(rows[:-2], made.segments, made.types, n_items=30).write(tmp_path / "b")
    return tmp_path / "a", tmp_path / "b"


@pytest.fixture
def differ(capsys):
    def call(*arguments):
        code = run(["diff", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_the_sentences_say_by_how_much_and_where(differ, runs):
    code, out, _ = differ(*runs)
    said = " ".join(out.split())
    assert code == 0
    assert "Over 86 pairs of tokens from 30 prompts, the mean probability goes" in said
    assert "1 of 4 steps differs, all told at once: layer 2 (+0.2" in said
    assert "without a counterpart: 2 of 88 in a, 0 of 86 in b" in said


def test_json_fits_its_schema_and_options_reach_it(differ, runs):
    code, out, _ = differ(
        *runs, "--json", "--quiet", "--pair", "id", "--level", 0.8, "--bootstrap", 150,
        "--seed", 4,
    )  # fmt: skip
    assert code == 0
    found = json.loads(out)
    schema = (files("iglens.data") / "run_difference.schema.json").read_text()
    Draft202012Validator(json.loads(schema)).validate(found)
    assert (found["level"], found["n_replicates"], found["seed"]) == (0.8, 150, 4)
    assert found["paired_by"] == "id"


def test_every_file_is_written(differ, runs, tmp_path):
    names = ["d.json", "d.csv", "d.parquet", "d.md", "d.html", "d.svg", "d.png"]
    places = [tmp_path / name for name in [*names, "d.pdf"]]
    code, _, err = differ(*runs, *(part for place in places for part in ("-o", place)))
    assert code == 0
    assert all(place.stat().st_size > 500 and place.name in err for place in places)
    found = json.loads((tmp_path / "d.json").read_text())
    lines = list(csv.DictReader((tmp_path / "d.csv").read_text().splitlines()))
    shown = [float(line["difference"]) for line in lines]
    assert shown == found["groups"][0]["credits"]["mean"]
    for name in ("d.md", "d.html"):
        assert "pairs of tokens" in (tmp_path / name).read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--target", " Paris"], "`--target` changes nothing"),
        (["--layers", "1,2"], "`--layers` changes nothing"),
        (["--pair", "key"], "known are auto, content, id"),
        (["--level", "0.1"], "`level` is 0.1"),
        (["-o", "x.docx"], ".docx"),
    ],
)
def test_what_cannot_be_meant_is_one_line(differ, runs, arguments, said):
    code, out, err = differ(*runs, *arguments)
    assert (code, out) == (2, "")
    line = err.strip().splitlines()[-1]
    assert line.startswith("iglens: ")
    assert said in line


def test_a_run_and_something_else_is_refused(differ, runs, tmp_path):
    code, _, err = differ(runs[0], "The capital of France is")
    assert code == 2
    assert "compared to another run only, and 'The capital" in err
    assert differ("a prompt", runs[1])[0] == 2
    assert "name it" in differ(runs[0])[2]
    (tmp_path / "empty").mkdir()
    code, _, err = differ(runs[0], tmp_path / "empty")
    assert code == 2
    assert "holds no run of iglens" in err


def test_options_of_runs_are_refused_without_runs(differ):
    code, _, err = differ("a prompt", "another", "--pair", "id")
    assert code == 2
    assert "`--pair` changes nothing here: it is for two folders" in err
