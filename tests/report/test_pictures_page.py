"""The page of the documentation on pictures: its code runs, its table is complete."""

import re
from pathlib import Path

import pytest

from iglens.report.charts import KINDS
from iglens.report.newcomer import ENOUGH, NEARLY
from iglens.report.page.payload import DIGITS, MOST_CELLS

PAGE = (Path(__file__).resolve().parents[2] / "docs/pictures.md").read_text()


def test_every_picture_is_in_the_table():
    assert set(re.findall(r'^\| `"(\w+)"` \|', PAGE, re.M)) == set(KINDS)


def test_the_limits_it_names_are_those_of_the_code():
    assert f"{MOST_CELLS:,} cells" in PAGE
    assert f"{ENOUGH:.0%} of the change" in PAGE
    assert f'"{NEARLY:.0%} of it"' in PAGE
    assert DIGITS == 6


@pytest.mark.embedded
def test_its_code_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.S):
        exec(code, known)
    assert (tmp_path / "italy.html").read_text().count("<img") == 1
    assert "Paris" in " ".join(known["chart"].to_dict()["title"]["text"])
    assert (tmp_path / "paris.svg").exists()
    assert 500_000 < (tmp_path / "paris.html").stat().st_size < 1_500_000
    assert (
        "becomes readable at layers 28 to 30 of 30"
        in (tmp_path / "paris.html").read_text()
    )
