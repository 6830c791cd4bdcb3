"""The tutorial notebooks show what their code gives, today and on any machine."""

import copy
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "examples"
NAMES = ("first_map.ipynb", "below_the_layer.ipynb")
VEGA = "application/vnd.vegalite.v6+json"
NUMBER = r"-?\d+\.\d+(?:e[-+]?\d+)?"


@pytest.fixture(scope="module")
def execute():
    path = FOLDER / "execute.py"
    spec = importlib.util.spec_from_file_location("execute", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=NAMES)
def notebook(request):
    return json.loads((FOLDER / request.param).read_text(encoding="utf-8"))


def outputs(notebook):
    return [out for cell in notebook["cells"] for out in cell.get("outputs", [])]


def prose(notebook):
    kinds = (cell for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    return "\n".join("".join(cell["source"]) for cell in kinds)


@pytest.mark.embedded
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_what_is_stored_is_what_the_code_gives(name):
    done = subprocess.run(
        [sys.executable, FOLDER / "execute.py", "--check", name],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def test_every_notebook_is_run(execute):
    assert set(execute.NOTEBOOKS) == {path.name for path in FOLDER.glob("*.ipynb")}
    assert set(NAMES) == set(execute.NOTEBOOKS)


def test_it_is_a_notebook_that_every_reader_takes(notebook):
    nbformat.validate(nbformat.reads(json.dumps(notebook), as_version=4))
    assert len(json.dumps(notebook)) < 1_000_000


def test_every_cell_was_run_in_order_and_none_failed(notebook):
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    counts = [cell["execution_count"] for cell in cells]
    assert counts == list(range(1, len(cells) + 1))
    for out in outputs(notebook):
        assert out["output_type"] != "error"
        assert out.get("name") != "stderr"


def test_charts_can_be_drawn_seen_and_read(notebook, execute):
    charts = [o for o in outputs(notebook) if execute.VEGA_LITE in o.get("data", {})]
    assert len(charts) >= 3
    for out in charts:
        data = out["data"]
        words = "".join(data["text/plain"])
        assert words == data[execute.VEGA_LITE]["description"]
        assert out["metadata"]["image/png"]["alt"] == words
        assert data["image/png"].startswith("iVBORw0KGgo")  # PNG's first bytes


def test_every_number_in_the_prose_is_in_an_output(notebook, execute):
    told = []
    for out in outputs(notebook):
        shown = [v for k, v in execute.texts(out).items() if k != "image/png"]
        told += [float(n.replace(",", "")) for n in re.findall(NUMBER, str(shown))]
    for text in re.findall(r"(?<![\w.])[-+]?\d+\.\d+", prose(notebook)):
        digits = len(text.partition(".")[2])
        assert any(round(value, digits) == float(text) for value in told), text


def test_links_lead_somewhere(notebook):
    links = re.findall(r"\]\(([^)#\s]+)", prose(notebook))
    assert links
    for link in links:
        assert (FOLDER / link).exists(), link


def test_code_fits_the_width_of_a_notebook(notebook):
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert max(map(len, "".join(cell["source"]).splitlines())) <= 88


def test_two_equal_runs_do_not_differ(notebook, execute):
    assert [*execute.differences(notebook, copy.deepcopy(notebook))] == []


def changed(notebook, kind, old, new):
    """The notebook with the first text of a kind changed that can be."""
    other = copy.deepcopy(notebook)
    for out in outputs(other):
        place = out if kind in out else out.get("data", {})
        text = json.dumps(place.get(kind))
        if re.search(old, text):
            place[kind] = json.loads(re.sub(old, new, text, count=1))
            return other
    raise AssertionError(f"nothing like {old} in {kind}")


STALE = [
    ("text", r"' Paris'", "' London'"),
    ("text", r"\b0\.77", "0.79"),
    ("text", r"layer 30|layers 29", "layer 2"),
    ("text", r"\\n", "\\\\n\\\\n"),
    (VEGA, r"0\.7\d\d+", "0.6"),
    (VEGA, r"#0072b2", "#0072b3"),
    (VEGA, r'"type": "nominal"', '"type": "ordinal"'),
    ("text/plain", r"\b30\b|\b5\b", "31"),
]


@pytest.mark.parametrize(("kind", "old", "new"), STALE)
def test_what_changed_is_told(notebook, execute, kind, old, new):
    other = changed(notebook, kind, old, new)
    assert len([*execute.differences(notebook, other)]) == 1
    assert len([*execute.differences(other, notebook)]) == 1


def test_outputs_that_came_or_went_are_told(notebook, execute):
    other = copy.deepcopy(notebook)
    full = [cell for cell in other["cells"] if cell.get("outputs")]
    del full[0]["outputs"][-1]
    assert len([*execute.differences(notebook, other)]) == 1
    assert len([*execute.differences(other, notebook)]) == 1


def test_numbers_of_tables_are_compared_and_colours_are_not(execute):
    notebook = json.loads((FOLDER / NAMES[0]).read_text(encoding="utf-8"))
    stale = changed(notebook, "text/html", r"\+0\.7025", "+0.7035")
    assert len([*execute.differences(notebook, stale)]) == 1
    faded = changed(notebook, "text/html", r"rgba\(0,114", "rgba(1,114")
    assert [*execute.differences(notebook, faded)] == []


def test_other_code_is_told(notebook, execute):
    other = copy.deepcopy(notebook)
    code = [cell for cell in other["cells"] if cell["cell_type"] == "code"]
    code[2]["source"] = ["1 + 1"]
    assert [*execute.differences(notebook, other)] == ["cell 3: other code"]
    del other["cells"][other["cells"].index(code[-1])]
    assert len([*execute.differences(notebook, other)]) > 1


SAME = [
    ("0.77 of it", "0.78 of it"),  # one in the last digit
    ("within 1e-16.", "within 0."),
    ("by 8e-08, by 5e-07", "by 9e-09, by 3e-06"),
    ("+2e-17", "-3e-17"),
    ("3.22e-15", "3.31e-15"),
]

OTHER = [
    ("0.77 of it", "0.79 of it"),
    ("0.77 of it", "0.77 of them"),
    ("layer 29", "layer 30"),
    ("46,075 neurons", "46,076 neurons"),
    ("within 1e-16", "within 1"),
    ("-0.12", "+0.12"),
    ("5e-04", "7e-04"),
]


@pytest.mark.parametrize(("one", "two"), SAME)
def test_rounding_is_no_difference(execute, one, two):
    assert execute.same_text(one, two)
    assert execute.same_text(two, one)


@pytest.mark.parametrize(("one", "two"), OTHER)
def test_more_than_rounding_is_a_difference(execute, one, two):
    assert not execute.same_text(one, two)
    assert not execute.same_text(two, one)


def test_numbers_of_charts_may_differ_a_little(execute):
    assert execute.same({"x": [0.5, 1, None]}, {"x": [0.50004, 1, None]})
    assert execute.same(0, 1e-17)
    assert execute.same(1000.0, 1000.05)
    for one, two in (([0.5], [0.501]), ([1], [2]), ([1, 2], [1]), (0.5, None)):
        assert not execute.same(one, two)
        assert not execute.same(two, one)
    for one, two in (({"x": 1}, {"y": 1}), ({"x": 1}, {"x": 1, "y": 1})):
        assert not execute.same(one, two)
        assert not execute.same(two, one)


def test_data_sets_are_numbered_as_they_come(execute):
    hashes = [f"data-{letter * 32}" for letter in "fa"]
    spec = {
        "layer": [{"data": {"name": name}} for name in hashes],
        "datasets": {key: [1] for key in sorted(hashes)},
    }
    found = execute.named_in_order(spec)
    assert [one["data"]["name"] for one in found["layer"]] == ["data-0", "data-1"]
    assert set(found["datasets"]) == {"data-0", "data-1"}
