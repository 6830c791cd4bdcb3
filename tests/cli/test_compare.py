"""`iglens compare`: one table, in every form, and what it refuses."""

import csv
import html.parser
import json
from importlib.resources import files

import pytest
from jsonschema import Draft202012Validator

from iglens.cli.main import run
from iglens.methods import METHODS
from iglens.storage.comparison_form import COLUMNS

SCHEMA = json.loads((files("iglens.data") / "comparison.schema.json").read_text())
TEXT = "The capital of France is"


@pytest.fixture(scope="module")
def written(tiny_folder, tmp_path_factory):
    """The command run once, with a file of every form."""
    folder = tmp_path_factory.mktemp("compared")
    outputs = [folder / f"table.{form}" for form in ("html", "md", "csv", "json")]
    given = [word for path in outputs for word in ("-o", str(path))]
    model = ["-m", str(tiny_folder), "--quiet", "--n-steps", "4"]
    assert run(["compare", TEXT, *model, *given]) == 0
    return {path.suffix: path.read_text() for path in outputs}


def test_the_json_fits_its_schema_and_has_every_method(written):
    document = json.loads(written[".json"])
    Draft202012Validator(SCHEMA).validate(document)
    assert set(document) == set(SCHEMA["properties"])
    described = SCHEMA["properties"]["methods"]["items"]["properties"]
    assert [one["method"] for one in document["methods"]] == list(METHODS)
    for method in document["methods"]:
        assert set(method) == set(described)
        assert len(method["values"]) == len(method["layers"]) == len(method["parts"])


def test_the_csv_has_a_line_per_method_and_the_numbers_of_the_json(written):
    lines = list(csv.DictReader(written[".csv"].splitlines()))
    methods = json.loads(written[".json"])["methods"]
    assert tuple(lines[0]) == COLUMNS
    for line, method in zip(lines, methods, strict=True):
        assert line["method"] == method["method"]
        assert (float(line["sum"]) if line["sum"] else None) == method["sum"]


def test_the_pages_show_every_method_and_every_layer(written):
    for form in (".md", ".html"):
        for method in METHODS.values():
            assert method.title in written[form]
    assert "| skip effect |" in written[".md"]
    layers = [line for line in written[".md"].splitlines() if line.startswith("| 3 |")]
    assert len(layers) == 1


def test_the_html_is_whole_and_loads_nothing(written):
    opened = []

    class Checker(html.parser.HTMLParser):
        def handle_starttag(self, tag, attrs):
            assert tag != "script"
            for name, value in attrs:
                assert not name.startswith("on")
                if name in ("src", "srcset", "href"):
                    assert value.startswith("data:image/svg+xml;base64,")
            if tag not in ("meta", "img", "source"):
                opened.append(tag)

        def handle_endtag(self, tag):
            assert opened.pop() == tag

    Checker().feed(written[".html"])
    assert opened == []
    assert "@import" not in written[".html"]


def test_the_terminal_fits_80_columns_and_tells_what_is_not_there(
    tiny_folder, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "80")
    model = ["-m", str(tiny_folder)]
    assert run(["compare", TEXT, *model, "--methods", "ig-lens,dla,tuned-lens"]) == 0
    out, err = capsys.readouterr()
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out
    assert "audit: Spearman's" in " ".join(out.split())
    assert "fitted lens: not here." in out
    assert "Running DLA per layer" in err


def test_json_on_stdout_is_one_document(tiny_folder, capsys):
    model = ["-m", str(tiny_folder), "--quiet", "--json"]
    assert run(["compare", TEXT, *model, "--methods", "ig-lens"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    document = json.loads(out)
    (method,) = document["methods"]
    assert abs(method["error"]) < 1e-6
    assert len(document["audit"]["effects"]) == document["audit"]["forwards"] - 2
    assert -1 <= method["agreement"] <= 1


def test_without_an_audit_there_is_no_agreement(tiny_folder, capsys):
    model = ["-m", str(tiny_folder), "--quiet", "--json", "--no-audit"]
    assert run(["compare", TEXT, *model, "--methods", "ig-lens"]) == 0
    document = json.loads(capsys.readouterr().out)
    Draft202012Validator(SCHEMA).validate(document)
    assert document["audit"] is None
    assert document["methods"][0]["agreement"] is None


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--methods", "nothing"], "known are all, ig-lens"),
        (["-o", "table.gif"], ".html, .md, .csv, .json"),
        (["--target", "@entropy"], "neither"),
        (["--answer", " Rome is"], "one token"),
    ],
)
def test_what_cannot_be_meant_is_exit_code_2(tiny_folder, capsys, arguments, match):
    assert run(["compare", TEXT, "-m", str(tiny_folder), *arguments]) == 2
    assert match in capsys.readouterr().err
