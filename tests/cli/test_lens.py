import json

import pytest
from families import some_ids
from safetensors import safe_open

from iglens.cli.main import run


@pytest.fixture
def lens(tiny_folder, capsys, tmp_path, monkeypatch):
    """`iglens lens COMMAND` on the tiny model, with a cache of its own."""
    monkeypatch.setenv("IGLENS_CACHE", str(tmp_path / "cache"))

    def call(command, *arguments):
        code = run(["lens", command, str(tiny_folder), *map(str, arguments)])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def text(tmp_path):
    """Enough documents to fit the tiny model on."""
    path = tmp_path / "text.jsonl"
    words = "the capital of France is not a city in the north of"
    lines = [
        json.dumps({"text": " ".join(f"{words} {n}" for n in some_ids(4, seed))})
        for seed in range(20)
    ]
    path.write_text("\n".join(lines))
    return path


def test_a_fit_prints_its_table_and_says_where_it_went(lens, text, tmp_path):
    path = tmp_path / "a.lens"
    code, out, err = lens("fit", "--text", text, "--tokens", 900, "-o", path)
    assert code == 0
    assert out.startswith("Lens ridge, judged at ")
    assert "(text.jsonl)" in out.splitlines()[0]
    assert [line.split()[0] for line in out.splitlines()[4:]] == ["0", "1", "2"]
    assert f"Wrote {path}" in err
    assert "reading states" in err
    with safe_open(path, framework="numpy") as file:
        assert file.get_tensor("weight").shape == (3, 32, 32)


def test_a_fit_as_json_says_what_was_done(lens, text, tmp_path):
    path = tmp_path / "a.lens"
    code, out, err = lens(
        "fit", "--text", text, "--tokens", 900, "-o", path, "--ridge", 0.5,
        "--layers", "0,2", "--seed", 3, "--json", "--quiet",
    )  # fmt: skip
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["path"] == str(path)
    assert found["settings"]["ridge"] == 0.5
    assert found["settings"]["seed"] == 3
    assert found["settings"]["text"] == "text.jsonl"
    assert [entry["layer"] for entry in found["layers"]] == [0, 2]


def test_without_a_file_the_lens_goes_where_auto_finds_it(lens, tmp_path):
    assert lens("eval")[0] == 2  # nothing there yet
    assert lens("fit", "--tokens", 600, "--quiet")[0] == 0
    (path,) = (tmp_path / "cache" / "lenses").iterdir()
    code, out, err = lens("eval", "--tokens", 40, "--layers", "1")
    assert code == 0
    assert f"taken from the cache: {path}" in err
    assert [line.split()[0] for line in out.splitlines()[4:]] == ["1"]
    assert "self-generated, seed 1000001" in out


def test_a_lens_is_judged_on_a_text(lens, text, tmp_path):
    path = tmp_path / "a.lens"
    lens("fit", "--text", text, "--tokens", 900, "-o", path)
    code, out, _ = lens(
        "eval", "--lens", path, "--text", text, "--tokens", 50, "--seed", 1, "--json"
    )
    assert code == 0
    found = json.loads(out)
    assert (found["tokens"], found["source"]) == (50, "text.jsonl")
    for entry in found["layers"]:
        assert entry["fitted"]["kl_bits"] < entry["raw"]["kl_bits"]
    code, out, _ = lens("eval", "--lens", "logit", "--tokens", 9, "--json")
    (first, *_) = json.loads(out)["layers"]
    assert first["raw"] == first["fitted"]


def test_a_polish_leaves_its_lens_and_no_state(lens, text, tmp_path):
    path = tmp_path / "a.lens"
    code, out, err = lens(
        "fit", "--text", text, "--tokens", 900, "-o", path, "--polish",
        "--steps", 3, "--step-tokens", 30,
    )  # fmt: skip
    assert code == 0
    assert "polishing" in err
    assert out.startswith("Lens polished")
    assert not (tmp_path / "a.lens.polish").exists()


def test_a_stopped_polish_leaves_its_state_and_no_half_lens(
    lens, text, tmp_path, monkeypatch
):
    from iglens.explaining.lenses import checkpoint
    from iglens.explaining.lenses.polish import Polisher

    path = tmp_path / "a.lens"
    fit = (
        "fit", "--text", text, "--tokens", 900, "-o", path, "--polish",
        "--steps", 4, "--step-tokens", 30,
    )  # fmt: skip
    assert lens(*fit)[0] == 0
    whole = path.read_bytes()
    path.unlink()
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    descend, taken = Polisher._descend, []

    def stopping(self, gradients):
        taken.append(self.step)
        if len(taken) == 3:
            raise KeyboardInterrupt
        descend(self, gradients)

    monkeypatch.setattr(Polisher, "_descend", stopping)
    assert lens(*fit)[0] == 130
    assert sorted(p.name for p in tmp_path.glob("a.lens*")) == ["a.lens.polish"]
    code, _, _ = lens(*fit)
    assert code == 0
    assert taken == [0, 1, 2, 2, 3]
    assert sorted(p.name for p in tmp_path.glob("a.lens*")) == ["a.lens"]
    with safe_open(path, framework="numpy") as found:
        weight = found.get_tensor("weight")
    path.write_bytes(whole)
    with safe_open(path, framework="numpy") as expected:
        assert (weight == expected.get_tensor("weight")).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit", "--text", "none.txt"), "none.txt cannot be read: no such file"),
        (("fit", "--text", "a", "--dataset", "b"), "`--text` or `--dataset`, not both"),
        (("fit", "--dataset", "a:b:c:d"), "write NAME, NAME:split"),
        (("fit", "--steps", "5"), "`--steps` and `--step-tokens` need `--polish`"),
        (("fit", "--ridge", "-1"), "`ridge` is -1"),
        (("fit", "--layers", "3"), "layer 3 is the identity"),
        (("fit", "-o", "none/a.lens"), "there is no folder"),
        (("fit", "--tokens", "30"), "at least 3 are needed"),
        (("eval", "--lens", "none.lens"), "none.lens cannot be read: no such file"),
        (("eval",), "Fit one with `iglens lens fit"),
    ],
)
def test_mistakes_end_in_one_line(lens, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = lens(*arguments)
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert not list(tmp_path.rglob("*.safetensors"))


def test_help_names_both_commands(capsys):
    assert run(["lens", "--help"]) == 0
    out = capsys.readouterr().out
    assert "fit" in out
    assert "eval" in out
