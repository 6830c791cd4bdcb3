"""`iglens report`: saved results as pages and pictures, without a model."""

import subprocess
import sys

import pytest
from factories import make_attribution

from iglens.cli.main import run


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "paris.safetensors"
    make_attribution(rows=2, n_layers=3, texts=(" Paris",)).save(path)
    return path


def test_a_page_appears_beside_each_result(saved, tmp_path, capsys):
    other = tmp_path / "rome.json"
    make_attribution(rows=1, texts=(" Rome",)).save(other)
    assert run(["report", str(saved), str(other)]) == 0
    assert "Paris" in (tmp_path / "paris.html").read_text()
    assert "Rome" in (tmp_path / "rome.html").read_text()
    assert capsys.readouterr().err.count("Wrote") == 2


def test_pictures_can_be_chosen(saved, tmp_path):
    places = [tmp_path / "a.svg", tmp_path / "b.png", tmp_path / "c.pdf"]
    options = [x for place in places for x in ("-o", str(place))]
    asked = ["--figure", "levels", "--theme", "dark", "--quiet", *options]
    assert run(["report", str(saved), *asked]) == 0
    assert "after layer" in places[0].read_text()
    assert all(place.stat().st_size > 1000 for place in places)


def test_a_row_can_be_chosen(saved, tmp_path):
    texts = []
    for row in "01":
        place = tmp_path / f"{row}.svg"
        asked = ["--figure", "waterfall", "--row", row, "-o", str(place)]
        assert run(["report", str(saved), *asked]) == 0
        texts.append(place.read_text())
    assert texts[0] != texts[1]


REFUSED = [
    (["{saved}", "-o", "x.gif"], "not one of .html"),
    (["{saved}", "-o", "x.svg", "--figure", "pie"], "known are map"),
    (["{saved}", "{saved}", "-o", "x.html"], "there are 2"),
    (["missing.safetensors"], "cannot be read"),
    (["{saved}", "-o", "x.svg", "--theme", "pink"], "light, dark"),
    (["{saved}", "-o", "nowhere/x.svg"], "nowhere"),
]


@pytest.mark.parametrize(("asked", "says"), REFUSED)
def test_what_cannot_be_done_is_refused_in_one_line(
    saved, tmp_path, capsys, monkeypatch, asked, says
):
    monkeypatch.chdir(tmp_path)
    assert run(["report", *(a.format(saved=saved) for a in asked)]) == 2
    assert says in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["paris.safetensors"]


def test_a_page_is_made_without_torch(saved):
    code = (
        "import sys; from iglens.cli.main import run; "
        f"run(['report', {str(saved)!r}]); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
