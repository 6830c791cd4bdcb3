"""`iglens replay`: its verdict, its exit code, and what it loads."""

import json

import pytest
import torch
from families import build, tokenizer
from gguf_files import Q4, Q8, write_gguf

from iglens import Attribution
from iglens.cli.main import run

PROMPT = "the cat sat"
TINY = ("--max-new-tokens", "2", "--quiet")


@pytest.fixture
def folder(tmp_path):
    """A checkpoint that a test may change."""
    return checkpoint(tmp_path / "model")


def checkpoint(folder, by=1.0):
    model = build("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight *= by
    model.save_pretrained(folder)
    tokenizer(chat=True).save_pretrained(folder)
    return folder


@pytest.fixture
def file(folder, tmp_path, capsys):
    path = tmp_path / "result.safetensors"
    assert run(["explain", PROMPT, "-m", str(folder), *TINY, "-o", str(path)]) == 0
    capsys.readouterr()
    return path


@pytest.fixture
def replay(capsys):
    def call(*arguments):
        code = run(["replay", *map(str, arguments)])
        return code, *capsys.readouterr()

    return call


def test_the_same_again_is_exit_code_0(replay, file):
    code, out, err = replay(file)
    assert code == 0
    assert out.startswith("Identical, bit for bit: 2 rows of 4 levels")
    assert "Same model, weights, versions and settings." in out
    assert "Loading" in err


def test_moved_weights_are_exit_code_2_and_still_a_report(replay, file, folder):
    checkpoint(folder, by=1.5)
    code, out, err = replay(file, "--quiet")
    assert (code, err) == (2, "")
    assert out.startswith("Changed: ")
    assert "weights_sha256: " in out


def test_json_says_the_same(replay, file, folder):
    checkpoint(folder, by=1.5)
    code, out, _ = replay(file, "--json", "--quiet")
    assert code == 2
    document = json.loads(out)
    assert document["schema"] == "iglens.replay/1"
    assert document["verdict"] == "changed"
    assert document["largest"]["layer"] in (2, 3)
    facts = {fact["name"]: fact for fact in document["facts"]}
    assert facts["weights_sha256"]["then"] != facts["weights_sha256"]["now"]
    assert facts["torch"]["then"] == facts["torch"]["now"]


def test_options_go_before_the_file(replay, file, folder, tmp_path):
    other = checkpoint(tmp_path / "other", by=1.5)
    assert replay(file, "-m", other, "--quiet")[0] == 2
    checkpoint(folder, by=1.5)
    good = checkpoint(tmp_path / "good")
    code, out, _ = replay(file, "-m", good, "--quiet")
    assert code == 0
    assert f"model: {folder} → {good}" in out
    code, out, _ = replay(
        file, "-m", good, "--dtype", "float64", "--attn-implementation", "eager"
    )
    assert code == 0
    assert "dtype: float32 → float64" in out
    assert "attn_implementation: sdpa → eager" in out


def test_the_recorded_dtype_and_attention_are_used(replay, folder, tmp_path, capsys):
    file = tmp_path / "odd.json"
    options = ("--dtype", "float64", "--attn-implementation", "eager")
    run(["explain", PROMPT, "-m", str(folder), *TINY, *options, "-o", str(file)])
    capsys.readouterr()
    code, out, _ = replay(file, "--quiet")
    assert code == 0
    assert out.startswith("Identical")
    other = checkpoint(tmp_path / "other")
    code, out, _ = replay(file, "-m", other, "--quiet")
    assert code == 0
    assert "dtype:" not in out


def test_a_gguf_file_is_found_again(replay, tmp_path, capsys):
    weights = tmp_path / "tiny.gguf"
    write_gguf(weights, build("llama", intermediate_size=64), tokenizer(), Q8)
    file = tmp_path / "result.json"
    run(["explain", PROMPT, "-m", str(weights), *TINY, "-o", str(file)])
    capsys.readouterr()
    code, out, _ = replay(file, "--quiet")
    assert code == 0
    assert out.startswith("Identical")
    assert "Same model, weights" in out


def test_another_quantisation_is_another_model(replay, tmp_path, capsys):
    sizes = {"intermediate_size": 64}  # rows are quantised in pieces of 32
    eight, four = (
        write_gguf(tmp_path / f"{kind.name}.gguf", build("llama", **sizes), *how)
        for kind, how in ((k, (tokenizer(), k)) for k in (Q8, Q4))
    )
    file = tmp_path / "result.json"
    run(["explain", PROMPT, "-m", str(eight), *TINY, "-o", str(file)])
    capsys.readouterr()
    code, out, _ = replay(file, "-m", four, "--json", "--quiet")
    found = json.loads(out)
    assert (code, found["verdict"]) == (2, "changed")
    facts = {fact["name"]: fact for fact in found["facts"]}
    weights = next(f for name, f in facts.items() if "weights" in name)
    assert weights["then"] != weights["now"]
    change, floor = abs(found["largest"]["change"]), found["noise_floor"]
    assert change > floor[found["largest"]["row"]]
    assert change == max(max(row) for row in found["moved"])


def test_the_new_result_can_be_kept(replay, file, tmp_path):
    code, _, err = replay(file, "-o", tmp_path / "new.json")
    assert code == 0
    assert "Wrote" in err
    new, old = (Attribution.load(p) for p in (tmp_path / "new.json", file))
    assert new.levels.tolist() == old.levels.tolist()
    assert (
        replay(file, "-o", tmp_path / "new.txt", "--format", "csv", "--quiet")[0] == 0
    )


@pytest.mark.parametrize(
    "options",
    [
        ("--device", "cpu"),
        ("--device-map", "cpu"),
        ("--revision", "main"),
        ("--trust-remote-code", "--accept-licence", "--debug"),
    ],
    ids=" ".join,
)
def test_loading_options_are_passed_on(replay, file, options):
    code, out, _ = replay(file, *options, "--quiet")
    assert code == 0
    assert out.startswith("Identical")


def test_what_cannot_be_run_again_is_refused_before_a_model_is_loaded(
    replay, folder, tmp_path, capsys
):
    import numpy as np

    np.save(tmp_path / "v.npy", np.ones(32, dtype=np.float32))
    file, start = tmp_path / "r.json", f"vector:{tmp_path / 'v.npy'}"
    options = (*TINY, "--baseline", start, "-o", str(file))
    run(["explain", PROMPT, "-m", str(folder), *options])
    capsys.readouterr()
    code, out, err = replay(file, "-m", "/no/such/model")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "(vector) that it does not hold" in err


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("gone.json", "cannot be read"),
        ("table.csv", "tables are for reading by others"),
        ("notes.txt", "load a"),
    ],
)
def test_what_is_no_result_gets_one_line(replay, tmp_path, name, fact):
    if name != "gone.json":
        (tmp_path / name).write_text("a,b\n")
    code, out, err = replay(tmp_path / name)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert fact in err


def test_a_model_that_is_gone_gets_one_line(replay, file, folder):
    folder.rename(folder.with_name("moved"))
    code, _, err = replay(file, "--quiet")
    assert code == 2
    assert err.count("\n") == 1
    assert "no model" in err
