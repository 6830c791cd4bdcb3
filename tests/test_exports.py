"""Anything written twice agrees: exports, versions, docs."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import iglens

ROOT = Path(__file__).resolve().parents[1]


def test_the_three_lists_of_public_names_agree():
    tree = ast.parse(Path(iglens.__file__).read_text())
    shown = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }
    assert len(iglens.__all__) == len(set(iglens.__all__))
    assert set(iglens.__all__) == shown == set(iglens._HOME)
    assert all(getattr(iglens, name) for name in iglens.__all__)


def test_the_public_names_are_these():
    assert " ".join(sorted(iglens.__all__)) == (
        "AffineLens ArgumentError ArgumentTypeError ArtifactError Attribution Audit "
        "Comparison Components CorpusMean Declaration Decoder Depths Difference "
        "Directions ENTROPY Effects Examination "
        "FidelityError Gradient IGLensError Interval KL_TO_FINAL LensEvaluation "
        "LinearReadout LogitLens ModelLoadError NonFiniteError Observed OutputError "
        "Polish Prepared Reader Replay Sampling Scalar Segment Target TargetError "
        "Trace UnsupportedModelError attribute audit compare corpus_mean diff "
        "evaluate_lens examine explain explain_like fit_lens gates load_corpus_mean "
        "load_lens prepare replay sensitivity"
    )


def test_explain_stays_a_function_when_its_room_was_imported_first():
    code = "import iglens.explaining.choices, iglens; assert callable(iglens.explain)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(iglens, "no_such_name")


def test_the_version_is_the_same_everywhere():
    project = (ROOT / "pyproject.toml").read_text()
    changelog = (ROOT / "CHANGELOG.md").read_text()
    citation = (ROOT / "CITATION.cff").read_text()
    assert f'version = "{iglens.__version__}"' in project
    assert re.search(r"^## \[?([\d.]+)", changelog, re.M)[1] == iglens.__version__
    assert re.search(r"^version: \"?([\d.]+)", citation, re.M)[1] == iglens.__version__


def test_every_error_is_drawn_in_the_tree():
    from iglens import errors

    names = [n for n, v in vars(errors).items() if isinstance(v, type)]
    assert [n for n in names if n not in (errors.__doc__ or "")] == []


def test_every_public_name_is_documented():
    pages = "\n".join(path.read_text() for path in (ROOT / "docs").rglob("*.md"))
    assert [name for name in iglens.__all__ if name not in pages] == []


def test_every_dependency_is_pinned_in_the_constraints():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(d for extra in project["optional-dependencies"].values() for d in extra),
    ]
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    names = {re.split(r"[<>=\[]", item)[0].lower() for item in wanted}
    assert names - pinned == set()
