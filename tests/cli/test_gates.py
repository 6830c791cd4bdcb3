"""`iglens explain --path gates`: its forms, and options that do not go with it."""

import json

import pytest
from families import TEXT

from iglens.cli.main import run


@pytest.fixture
def explained(tiny_folder, capsys):
    def call(*arguments):
        code = run(["explain", TEXT, "-m", str(tiny_folder), *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_the_table_has_credits_gates_and_the_ledger(explained, tmp_path):
    page = tmp_path / "gates.html"
    code, out, err = explained("--path", "gates", "--target", " Rome", "-o", str(page))
    assert code == 0
    assert "layer credit  gates ledger" in out
    said = " ".join(out.split())
    assert "' Rome' at" in said
    assert "Certified to 0.0001" in said
    assert "Gate path …" in err
    assert "Rome" in page.read_text()


def test_json_has_a_row_for_every_token_of_the_answer(explained):
    code, out, err = explained(
        "--path", "gates", "--answer", " Rome is", "--json", "--quiet", "--by",
        "sublayer",
    )  # fmt: skip
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["schema"] == "iglens.effects/1"
    assert len(document["values"]) == len(document["positions"]) == 2
    assert all(sum(row) == pytest.approx(0, abs=1e-5) for row in document["ledger"])


def test_without_the_option_nothing_changes(explained):
    code, out, _ = explained("--path", "blocks", "--target", " Rome", "--json")
    assert code == 0
    assert json.loads(out)["schema"] == "iglens.attribution/1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "::2"], "every layer on it"),
        (["--baseline", "mean"], "at the embedding"),
        (["--baseline", "embedding", "--baseline", "zero"], "at the embedding"),
        (["--lens", "auto"], "through no lens"),
        (["--estimator", "gradient"], "until it is certified"),
        (["--n-steps", "64"], "`--n-steps`"),
        (["--rule", "trapezoid"], "`--rule`"),
        (["--top", "3"], "blocks and sublayers"),
        (["--by", "head"], "`--by head`"),
        (["--diagnostics"], "reads no states"),
        (["--sensitivity"], "one start"),
        (["--rivals", "2"], "flows"),
        (["--promotion"], "promotion is along"),
        (["--interaction", "--by", "sublayer"], "interaction is along"),
        (["-o", "gates.safetensors"], ".json, .csv, .parquet, .html, .md"),
    ],
)
def test_what_means_nothing_with_gates_is_refused(explained, arguments, message):
    code, out, err = explained("--path", "gates", *arguments, "--quiet")
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())


def test_what_it_has_anyway_may_be_said(explained):
    said = ["--baseline", "embedding", "--lens", "logit", "--layers", "all"]
    code, _, err = explained("--path", "gates", "--target", " Rome", "--quiet", *said)
    assert (code, err) == (0, "")


def test_an_unknown_path_is_refused(explained):
    code, _, err = explained("--path", "doors")
    assert code == 2
    assert "blocks, gates" in err
