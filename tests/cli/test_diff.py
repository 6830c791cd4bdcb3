"""`iglens diff`: files, prompts, models; what it prints, writes and refuses."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from families import build, tokenizer
from gguf_files import F32, Q4, Q8, write_gguf
from jsonschema import Draft202012Validator

from iglens import Attribution
from iglens.cli.main import run

CLEAN, CORRUPTED = "the cat sat", "a dog sat on the mat"
TINY = ("--max-new-tokens", "2", "--quiet")


@pytest.fixture
def iglens(tiny_folder, capsys):
    def call(command, *arguments, model=tiny_folder):
        names = () if model is None else ("-m", str(model))
        code = run([command, *names, *map(str, arguments)])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def file(iglens, tmp_path):
    """The result of the first prompt."""
    path = tmp_path / "clean.safetensors"
    code, _, err = iglens("explain", CLEAN, *TINY, "-o", path)
    assert code == 0, err
    return path


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory):
    """The same architecture with other weights."""
    folder = tmp_path_factory.mktemp("other")
    build("llama", seed=3).save_pretrained(folder)
    tokenizer(chat=True).save_pretrained(folder)
    return folder


def document(found):
    code, out, err = found
    assert code == 0, err
    return json.loads(out)


def assert_adds_up(found):
    for base, credits, final in zip(
        found["baseline"], found["credits"], found["final"], strict=True
    ):
        assert base + sum(credits) == pytest.approx(final, abs=1e-12)


def test_two_prompts_are_run_on_one_model(iglens):
    found = document(iglens("diff", CLEAN, CORRUPTED, "--json", *TINY))
    assert_adds_up(found)
    assert (found["a"]["prompt"], found["b"]["prompt"]) == (CLEAN, CORRUPTED)
    alone = document(iglens("explain", CLEAN, "--json", *TINY))
    assert found["a"]["levels"] == alone["levels"]
    said = [token["id"] for token in alone["tokens"]][-2:]
    assert [token["id"] for token in found["b"]["tokens"]][-2:] == said


def test_the_order_decides_the_sign(iglens):
    one, other = (
        document(iglens("diff", *pair, "--target", "a", "--json", "--quiet"))
        for pair in ((CLEAN, CORRUPTED), (CORRUPTED, CLEAN))
    )
    assert one["final"][0] == -other["final"][0] != 0


def test_two_files_are_taken_from_each_other_without_a_model(iglens, file, tmp_path):
    result = Attribution.load(file)
    result.save(tmp_path / "same.json")
    found = document(
        iglens("diff", file, tmp_path / "same.json", "--json", "--quiet", model=None)
    )
    assert np.all(np.array(found["credits"]) == 0)
    assert not np.any(found["beyond_noise"])


def test_two_files_need_no_torch(file, tmp_path):
    import subprocess
    import sys

    code = (
        f"import sys; from iglens.cli.main import run; code = run(['diff', "
        f"{str(file)!r}, {str(file)!r}]); sys.exit(code or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("first", [True, False])
def test_a_prompt_beside_a_file_is_explained_as_the_file_was(iglens, file, first):
    pair = (file, CORRUPTED) if first else (CORRUPTED, file)
    given = document(iglens("diff", *pair, "--json", "--quiet"))
    named = document(iglens("diff", *pair, "--json", "--quiet", model=None))
    assert given["levels"] == named["levels"]
    both = document(iglens("diff", CLEAN, CORRUPTED, "--json", *TINY))
    sign = 1 if first else -1
    np.testing.assert_array_equal(sign * np.array(given["levels"]), both["levels"])


def test_a_prompt_beside_a_file_of_a_chat_is_a_chat(iglens, tmp_path):
    file = tmp_path / "chat.json"
    chat = ("--chat", "--system", "be brief")
    code, _, err = iglens("explain", CLEAN, *chat, *TINY, "-o", file)
    assert code == 0, err
    found = document(iglens("diff", file, CORRUPTED, "--json", "--quiet"))
    assert found["b"]["settings"]["system"] == "be brief"
    raw = document(iglens("diff", file, CORRUPTED, "--raw", "--json", "--quiet"))
    assert len(raw["b"]["tokens"]) < len(found["b"]["tokens"])


def test_one_prompt_on_two_models(iglens, other_folder, tiny_folder):
    found = document(iglens("diff", CLEAN, "--against", other_folder, "--json", *TINY))
    assert_adds_up(found)
    assert found["a"]["model"]["path"] == str(tiny_folder)
    assert found["b"]["model"]["path"] == str(other_folder)
    assert found["a"]["tokens"] == found["b"]["tokens"]
    assert np.any(found["beyond_noise"])


def test_one_prompt_in_two_dtypes_differs_by_rounding(iglens):
    code, out, err = iglens(
        "diff", CLEAN, "--against-dtype", "bfloat16", "--dtype", "float32", *TINY
    )
    assert code == 0, err
    assert "a: float32" in out
    assert "b: bfloat16" in out
    assert "No layer differs beyond rounding." in out


def test_two_quantisations_of_one_model(iglens, tmp_path):
    sizes = {"intermediate_size": 64}  # rows are quantised in pieces of 32
    names = [
        write_gguf(tmp_path / f"{kind.name}.gguf", build("llama", **sizes), *how)
        for kind, how in ((k, (tokenizer(), k)) for k in (F32, Q8, Q4))
    ]
    found = {
        name.stem: document(
            iglens("diff", CLEAN, "--against", name, "--json", *TINY, model=names[0])
        )
        for name in names
    }
    largest = {kind: np.abs(one["levels"]).max() for kind, one in found.items()}
    assert 0 == largest["F32"] < largest["Q8_0"] < largest["Q4_0"]
    assert np.any(found["Q4_0"]["beyond_noise"])
    assert found["Q4_0"]["b"]["model"]["note"] == "dequantised from GGUF"
    hashes = {one["b"]["model"]["weights_sha256"] for one in found.values()}
    assert len(hashes) == 3


def test_a_revision_is_passed_on(iglens):
    code, _, err = iglens("diff", CLEAN, "--against-revision", "main", *TINY)
    assert code == 0, err


def test_the_table_and_its_sentences_are_printed(iglens):
    code, out, err = iglens("diff", CLEAN, CORRUPTED, "--target", "a", "--quiet")
    assert (code, err) == (0, "")
    assert f"a: {CLEAN}" in out
    assert f"b: {CORRUPTED}" in out
    assert "'a': 0." in out
    assert "b - a" in out
    assert "= readout" in out
    assert "Differences add up within" in out
    assert "\x1b" not in out


def test_talk_goes_to_stderr(iglens, file):
    code, out, err = iglens("diff", file, CLEAN, "--layers", "2")
    assert code == 0
    assert "Loading" in err
    assert "Note: Paths are taken through layers [2, 3]" in err
    assert "Loading" not in out
    assert "Note" not in out


def test_layers_of_files_are_coarsened(iglens, file, tmp_path):
    Attribution.load(file).coarsen([2]).save(tmp_path / "coarse.json")
    pair = (file, tmp_path / "coarse.json")
    code, _, err = iglens("diff", *pair, "--quiet", model=None)
    assert code == 2
    assert "`layers` 2,3" in err
    found = document(
        iglens("diff", *pair, "--layers", "2,3", "--json", "--quiet", model=None)
    )
    assert found["layers"] == [2, 3]


def test_files_are_written_in_every_format(iglens, file, tmp_path):
    names = [tmp_path / f"d.{end}" for end in ("json", "csv", "parquet", "txt")]
    options = [part for name in names[:3] for part in ("-o", name)]
    code, _, err = iglens("diff", file, CORRUPTED, *options)
    assert code == 0
    assert err.count("Wrote") == 3
    code, _, _ = iglens(
        "diff", file, CORRUPTED, "-o", names[3], "--format", "json", "--quiet"
    )
    assert code == 0
    assert (
        json.loads(names[3].read_text()).keys()
        == json.loads(names[0].read_text()).keys()
    )
    assert all(name.stat().st_size for name in names)


def test_what_is_printed_fits_the_schema(iglens, file):
    from importlib.resources import files

    schema = json.loads((files("iglens.data") / "difference.schema.json").read_text())
    Draft202012Validator(schema).validate(
        document(iglens("diff", file, CORRUPTED, "--json", "--quiet"))
    )


def test_a_prompt_can_come_from_stdin(iglens, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(CORRUPTED))
    piped = document(iglens("diff", CLEAN, "-", "--json", *TINY))
    assert piped["b"]["prompt"] == CORRUPTED


@pytest.mark.parametrize(
    "arguments",
    [
        ("--target", "a", "--unit", "log_odds", "--baseline", "mean"),
        ("--answer", " cat", "--contrast", "@rival"),
        ("--estimator", "gradient", "--n-steps", "4", "--rule", "trapezoid"),
        ("--positions", "prompt", "--max-new-tokens", "0", "--no-special-tokens"),
        ("--sample", "--temperature", "2", "--top-p", "0.9", "--seed", "7"),
        ("--precision", "float64", "--no-diagnostics", "--no-strict"),
        ("--tolerance", "0"),
        ("--chat", "--system", "be brief", "--layers", "::2", "--lens", "logit"),
        ("--attn-implementation", "eager", "--device", "cpu", "--dtype", "float64"),
        ("--device-map", "cpu", "--revision", "main"),
        ("--trust-remote-code", "--accept-licence", "--debug"),
    ],
    ids=" ".join,
)
def test_every_option_works(iglens, arguments):
    found = document(iglens("diff", CLEAN, CORRUPTED, "--json", "--quiet", *arguments))
    if found["estimator"] == "observed":
        assert_adds_up(found)
    assert found["notes"] == [] or "--positions" in arguments


def test_a_vector_is_taken_for_both(iglens, tmp_path):
    np.save(tmp_path / "v.npy", np.linspace(-1, 1, 32).astype(np.float32))
    baseline = ("--baseline", f"vector:{tmp_path / 'v.npy'}")
    found = document(
        iglens(
            "diff", CLEAN, CORRUPTED, *baseline, "--json", "--target", "a", "--quiet"
        )
    )
    assert found["baseline_kind"] == "vector"
    assert found["a"]["baseline"] == found["b"]["baseline"]


def test_every_option_is_in_a_test():
    from typer.main import get_command

    from iglens.cli.main import app

    tests = (
        Path(__file__).read_text()
        + Path(Path(__file__).parent / "test_replay.py").read_text()
        + Path(Path(__file__).parent / "test_by.py").read_text()
        + Path(Path(__file__).parent / "test_diff_runs.py").read_text()
    )
    commands = get_command(app).commands
    flags = {
        flag
        for name in ("diff", "replay")
        for parameter in commands[name].params
        for flag in (*parameter.opts, *parameter.secondary_opts)
        if flag.startswith("--")
    }
    # tested by their short names, as the default, or as their negation
    flags -= {"--model", "--output", "--help"}
    flags -= {"--strict", "--special-tokens", "--diagnostics"}
    assert sorted(f for f in flags if f'"{f}"' not in tests) == []


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        ((CLEAN,), "`--against`"),
        (("FILE",), "name a second file or prompt."),
        (("FILE", "--against", "smollm2"), "name a second file or prompt."),
        ((CLEAN, CORRUPTED, "--against", "smollm2"), "which made the difference"),
        (("FILE", "FILE", "--against-dtype", "float64"), "which made the difference"),
        (("FILE", "FILE", "--unit", "log_odds"), "`--unit` changes nothing"),
        (("FILE", "FILE", "--dtype", "float64"), "`--dtype` changes nothing"),
        (("FILE", CLEAN, "--target", "a", "--raw"), "`--target` changes nothing"),
        (("FILE", CLEAN, "--layers", "9"), "[9]"),
        (("FILE", "gone.json"), "gone.json cannot be read"),
        (("FILE", "table.csv"), "table.csv cannot be"),
        ((CLEAN, ""), "`PROMPT` is empty"),
        ((CLEAN, CORRUPTED, "-o", "d.safetensors"), ".json, .csv, .parquet"),
        ((CLEAN, CORRUPTED, "--seed", "3"), "--sample"),
        ((CLEAN, "--against", "/no/such/model"), "/no/such/model"),
        ((), "Missing"),
    ],
    ids=str,
)
def test_bad_input_gets_one_line_and_exit_code_2(iglens, file, arguments, fact):
    named = [str(file) if part == "FILE" else part for part in arguments]
    model = None if named.count(str(file)) == 2 else file.parent
    code, out, err = iglens(
        "diff", *named, "--quiet", **({} if model else {"model": None})
    )
    assert (code, out) == (2, "")
    assert err.startswith("iglens: ")
    assert err.count("\n") == 1
    assert fact in err


def test_a_model_beside_two_files_is_refused(iglens, file):
    code, _, err = iglens("diff", file, file)
    assert code == 2
    assert "`--model` changes nothing here" in err


def test_results_of_other_choices_are_refused(iglens, file, tmp_path):
    other = tmp_path / "odds.json"
    iglens("explain", CLEAN, *TINY, "--unit", "log_odds", "-o", other)
    code, _, err = iglens("diff", file, other, model=None)
    assert code == 2
    assert "the unit is probability in the first and log_odds in the second" in err


def test_a_prompt_that_mentions_a_file_is_a_prompt(iglens):
    found = document(iglens("diff", "the mat.json", "a cat in it.csv", "--json", *TINY))
    assert found["a"]["prompt"] == "the mat.json"
