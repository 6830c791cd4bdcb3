"""The whole command: exit codes, one line for every mistake, stdout against stderr."""

import json
import subprocess
import sys
import time

import pytest

import iglens
from iglens.cli.main import run

TINY = ("--max-new-tokens", "2", "--quiet")


@pytest.fixture
def explain(tiny_folder, capsys):
    def call(*arguments):
        code = run(["explain", "-m", str(tiny_folder), *arguments])
        return code, *capsys.readouterr()

    return call


@pytest.mark.parametrize(
    "arguments", [("--help",), ("--version",), ("explain", "--help"), ("run", "-h")]
)
def test_help_answers_without_importing_anything_large(arguments):
    large = "torch transformers numpy pyarrow altair pandas tokenizers huggingface_hub"
    code = (
        "import sys; from iglens.cli.main import run; "
        f"code = run({list(arguments)!r}); found = {{*{large.split()!r}}} & "
        "{name.partition('.')[0] for name in sys.modules}; "
        "sys.exit(str(found) if found else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_help_takes_little_longer_than_the_library_that_prints_it():
    def seconds(*arguments):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        return time.perf_counter() - start

    pairs = [
        (seconds("-m", "iglens", "--help"), seconds("-c", "import typer, rich.table"))
        for _ in range(5)
    ]
    assert min(ours / theirs for ours, theirs in pairs) < 3


def test_the_version_is_printed(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"iglens {iglens.__version__}\n"


def test_no_arguments_show_the_help(capsys):
    assert run([]) == 0
    assert "explain" in capsys.readouterr().out


def test_data_goes_to_stdout_and_talk_to_stderr(explain):
    code, out, err = explain("The capital of France is", "--max-new-tokens", "2")
    assert code == 0
    assert "Loading" in err
    assert "Loading" not in out
    assert "Verified" in out


def test_quiet_says_nothing_on_stderr(explain):
    code, _, err = explain("The capital of France is", *TINY)
    assert (code, err) == (0, "")


def test_json_on_stdout_is_one_document_that_adds_up(explain):
    code, out, _ = explain("The capital of France is", "--json", *TINY)
    document = json.loads(out)
    assert code == 0
    assert document["schema"] == "iglens.attribution/1"
    for base, credits, final in zip(
        document["baseline"], document["credits"], document["final"], strict=True
    ):
        assert base + sum(credits) == pytest.approx(final, abs=1e-12)


def test_the_prompt_can_come_from_stdin(explain, monkeypatch):
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("The capital of France is\n"))
    _, piped, _ = explain("-", "--json", *TINY)
    _, given, _ = explain("The capital of France is", "--json", *TINY)
    assert json.loads(piped)["levels"] == json.loads(given)["levels"]


def test_output_files_are_written_in_every_format(explain, tmp_path):
    files = [tmp_path / f"r.{end}" for end in ("json", "csv", "parquet", "safetensors")]
    options = [part for file in files for part in ("-o", str(file))]
    code, _, _ = explain("The capital of France is", *options, *TINY)
    assert code == 0
    one, other = (iglens.Attribution.load(files[i]) for i in (0, 3))
    assert one.levels.tolist() == other.levels.tolist()
    assert all(file.stat().st_size for file in files)


def test_format_overrides_the_extension(explain, tmp_path):
    file = tmp_path / "result.txt"
    code, _, _ = explain("The", "-o", str(file), "--format", "json", *TINY)
    assert code == 0
    assert json.loads(file.read_text())["schema"] == "iglens.attribution/1"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--target", " Paris"),
        ("--target", " Paris| Rome", "--target", "<|im_end|>"),
        ("--answer", " Rome"),
        ("--chat", "--system", "be brief"),
        ("--positions", "prompt", "--max-new-tokens", "0"),
        ("--positions", "2:4", "--max-new-tokens", "0", "--no-special-tokens"),
        ("--layers", "::2", "--baseline", "mean", "--unit", "log_probability"),
        ("--estimator", "gradient", "--n-steps", "4", "--rule", "trapezoid"),
        ("--sample", "--temperature", "2", "--top-p", "0.9", "--seed", "7"),
        ("--dtype", "float64", "--precision", "float64", "--unit", "log_odds"),
        ("--no-diagnostics", "--no-strict", "--attn-implementation", "eager"),
        ("--dtype", "bfloat16", "--device", "cpu"),
        ("--baseline", "paper-mean"),
        ("--baseline", "zero", "--profile"),
        ("--device-map", "cpu", "--revision", "main"),
        ("--target", " Paris", "--contrast", " Rome", "--unit", "logit"),
        ("--contrast", "@rival", "--unit", "log_probability"),
        ("--target", "@entropy", "--target", "@kl", "--target", " Paris"),
        ("--baseline", "zero", "--baseline", "prompt:The capital of Rome is a"),
        ("--lens", "logit", "--sensitivity"),
        ("--target", " Paris", "--rivals", "2"),
        ("--target", " Paris", "--promotion"),
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_every_option_works(explain, arguments):
    code, out, err = explain(
        "The capital of France is", "--json", "--max-new-tokens", "2", *arguments
    )
    assert code == 0, err
    document = json.loads(out)
    assert document["levels"]
    assert document["fidelity"][0] < 0.05


def test_a_profile_adds_up_to_the_time_the_command_took(explain):
    start = time.perf_counter()
    code, out, err = explain("The capital of France is", "--profile", *TINY)
    passed = time.perf_counter() - start
    lines = [line.split() for line in err.splitlines() if line.endswith("%")]
    seconds = {name: float(each) for name, each, *_ in lines}
    total = seconds.pop("total")
    assert code == 0
    assert set(seconds) >= {"load", "tokenise", "forward", "readout", "render", "other"}
    assert sum(seconds.values()) == pytest.approx(total, abs=0.005 * len(lines))
    assert 0.9 * passed - 0.05 <= total <= passed + 0.005
    assert "100.0%" not in out


def test_a_run_says_where_its_time_went(tiny_folder, tmp_path, capsys):
    rows = tmp_path / "rows.txt"
    rows.write_text("The capital of France is\nThe sky is\n")
    where = ("-m", str(tiny_folder), "-o", str(tmp_path / "run"))
    assert run(["run", str(rows), *where, "--max-new-tokens", "2", "--profile"]) == 0
    err = capsys.readouterr().err
    lines = [line.split() for line in err.splitlines() if line.endswith("%")]
    seconds = {name: float(each) for name, each, *_ in lines}
    assert set(seconds) >= {"read", "load", "forward", "readout", "write", "other"}
    total = seconds.pop("total")
    assert sum(seconds.values()) == pytest.approx(total, abs=0.005 * len(lines))


def test_no_profile_is_printed_unasked(explain):
    assert "readout" not in explain("The capital of France is", *TINY)[2]


def test_every_option_is_in_a_test():
    from pathlib import Path

    from typer.main import get_command

    from iglens.cli.main import app

    tests = "\n".join(p.read_text() for p in Path(__file__).parent.glob("test_*.py"))
    command = get_command(app).commands["explain"]
    flags = [
        flag
        for parameter in command.params
        for flag in (*parameter.opts, *parameter.secondary_opts)
        if flag.startswith("--")
    ]
    # tested by their short names, as the default, or as their negation
    elsewhere = {"--model", "--output", "--raw", "--help"}
    elsewhere |= {"--strict", "--special-tokens", "--diagnostics"}
    assert [f for f in flags if f'"{f}"' not in tests and f not in elsewhere] == []


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        ([""], "`PROMPT` is empty"),
        (["a", "--target", "isn"], "is not one token"),
        (["a", "--layers", "1,99"], "[99]"),
        (["a", "--layers", "x"], "::4"),
        (["a", "--positions", "4:9"], "leaves nothing"),
        (["a", "--unit", "bits"], "log_probability"),
        (["a", "--baseline", "median"], "paper-mean"),
        (["a", "--baseline", "vector:/no/such.npy"], ".npy"),
        (["a", "--estimator", "magic"], "observed, gradient"),
        (["a", "--rule", "simpson", "--estimator", "gradient"], "gauss-legendre"),
        (["a", "--baseline", "corpus:/no/such.txt"], "/no/such.txt cannot be read"),
        (["a", "--baseline", "prompt:"], "empty"),
        (["a", "--target", " Paris", "--contrast", " Paris"], "with itself"),
        (["a", "--target", "@entropy", "--contrast", " Paris"], "no contrast"),
        (["a", "--lens", "/no/such.safetensors"], "/no/such.safetensors"),
        (["a", "--lens", "auto"], "iglens lens fit"),
        (["a", "--n-steps", "0", "--estimator", "gradient"], "at least 1"),
        (["a", "--precision", "int8"], "float64"),
        (["a", "--dtype", "int8"], "bfloat16"),
        (["a", "--seed", "3"], "--sample"),
        (["a", "--sample", "--temperature", "0"], "> 0"),
        (["a", "--system", "x"], "chat"),
        (["a", "--target", " Paris", "--answer", "x"], "not both"),
        (["a", "-o", "/no/such/folder/x.json"], "no folder"),
        (["a", "-o", "x.docx"], ".safetensors"),
        (["a" * 500], "context"),
        (["a", "--max-new-tokens", "-1"], "--max-new-tokens"),
        (["a", "--nonsense"], "--nonsense"),
        ([], "prompt"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_bad_input_gets_one_line_and_exit_code_2(explain, arguments, fact):
    code, out, err = explain(*arguments, "--quiet")
    assert (code, out) == (2, "")
    assert err.startswith("iglens: ")
    assert err.count("\n") == 1
    assert fact in err
    assert "Traceback" not in err


def test_a_missing_model_gets_one_line(capsys):
    assert run(["explain", "a", "-m", "/no/such/model", "--quiet"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_debug_shows_the_traceback(capsys):
    assert run(["explain", "a", "-m", "/no/such/model", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_unwritable_output_is_refused_before_the_model_is_loaded(capsys):
    code = run(["explain", "a", "-m", "/no/such/model", "-o", "/no/such/x.json"])
    assert code == 2
    assert "no folder" in capsys.readouterr().err


def test_nothing_is_left_behind_when_the_run_is_refused(explain, tmp_path):
    file = tmp_path / "r.json"
    code, _, _ = explain("a", "--target", "isn", "-o", str(file))
    assert code == 2
    assert list(tmp_path.iterdir()) == []


def test_an_internal_error_is_exit_code_1(monkeypatch, capsys, tiny_folder):
    import iglens.explaining

    def broken(*_, **__):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(iglens.explaining, "prepare", broken)
    assert run(["explain", "a", "-m", str(tiny_folder), "--quiet"]) == 1
    assert "planted" in capsys.readouterr().err


def test_interrupting_is_exit_code_130(monkeypatch, capsys, tiny_folder):
    import iglens.explaining

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(iglens.explaining, "prepare", interrupted)
    assert run(["explain", "a", "-m", str(tiny_folder), "--quiet"]) == 130


def test_a_vector_baseline_is_read_from_a_file(explain, tmp_path):
    import numpy as np

    file = tmp_path / "v.npy"
    np.save(file, np.zeros(32, dtype=np.float32))
    _, vector, _ = explain("The", "--baseline", f"vector:{file}", "--json", *TINY)
    _, zero, _ = explain("The", "--baseline", "zero", "--json", *TINY)
    assert json.loads(vector)["levels"] == json.loads(zero)["levels"]


def test_targets_are_named_in_the_sentences(explain):
    asked = ("--target", " Paris", "--target", "@entropy")
    _, out, _ = explain("The", *asked, "--contrast", " Rome", *TINY)
    assert out == ""  # an entropy has no contrast
    _, out, _ = explain("The", *asked, *TINY)
    assert "'·Paris': " in out or "' Paris': " in out
    assert "\nentropy: " in out
    _, out, _ = explain("The", "--target", " Paris", "--contrast", " Rome", *TINY)
    assert "' Paris' against ' Rome': " in out


def test_sensitivity_is_told_after_the_map_and_in_json(explain):
    asked = ("The capital of France is", "--target", " Paris", "--sensitivity", *TINY)
    _, out, _ = explain(*asked)
    assert "Every later credit is the same, within 0." in out
    _, out, _ = explain(*asked, "--baseline", "prompt:The capital of Rome is", "--json")
    found = json.loads(out)["sensitivity"]
    assert found["baselines"] == ["embedding", "zero", "mean", "prompt"]
    assert found["moved"] == [0, 0, 0, 0]


@pytest.mark.parametrize("how", ["--trust-remote-code", "--accept-licence"])
def test_permissions_that_are_not_needed_change_nothing(explain, how):
    code, _, _ = explain("The", how, *TINY)
    assert code == 0


@pytest.mark.embedded
def test_the_first_command_of_the_readme_answers_the_question(capsys):
    assert run(["explain", "The capital of France is"]) == 0
    out = capsys.readouterr().out
    assert "' Paris': 0.77; 0.70 of it became readable between layers 29 and 30." in out
    assert "Verified" in out
    assert "\x1b" not in out  # no colour in a pipe
