"""`iglens run`: from the command line to a store, and what it says on the way."""

import json

import corpora
import families
import pytest

from iglens.cli.main import run as main
from iglens.corpus import Store


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    families.build("llama").save_pretrained(path)
    families.tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def corpus(tmp_path):
    return corpora.write_corpus(tmp_path / "corpus.jsonl")


@pytest.fixture
def call(capsys, folder):
    def call(*arguments, model=folder):
        code = main(["run", *map(str, arguments), "--model", str(model)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_a_run_and_the_same_again(call, corpus, tmp_path):
    code, out, err = call(corpus, "-o", tmp_path / "run", "--shard-rows", 10)
    assert code == 0
    assert out.startswith(f"{tmp_path / 'run'}: 42 rows, ")
    assert "6 failures" in out
    assert "6 rows could not be explained" in err
    assert f"iglens summary {tmp_path / 'run'}" in err
    before = corpora.contents(tmp_path / "run")
    assert {"run.json", "failures.jsonl", "summary.json"} <= set(before)
    code, out, err = call(corpus, "-o", tmp_path / "run", "--shard-rows", 10)
    assert (code, "(42 were there already)" in out) == (0, True)
    assert corpora.contents(tmp_path / "run") == before


def test_parts_and_json(call, corpus, tmp_path):
    path = tmp_path / "run"
    common = (corpus, "-o", path, "--shard-rows", 10, "--json", "--quiet")
    code, out, err = call(*common, "--shard", "2/2")
    found = json.loads(out)
    assert (code, err, found["complete"]) == (0, "", False)
    assert not (path / "summary.json").exists()  # of a part it would be another
    _, out, _ = call(*common, "--shard", "1/2")
    found = json.loads(out)
    assert (found["n_rows"], found["n_total"], found["complete"]) == (42, 42, True)
    assert (path / "summary.json").exists()


def test_everything_that_explain_can(call, corpus, tmp_path):
    asked = ("--by", "head", "--top", 2, "--unit", "log_odds", "--baseline", "mean")
    code, _, _ = call(corpus, "-o", tmp_path / "run", *asked, "--limit", 8)
    store = Store.load(tmp_path / "run")
    assert code == 0
    assert store.settings["n_rows"] == 8
    (batch,) = store.batches()
    assert set(batch.column("unit").to_pylist()) == {"log_odds"}
    assert all(len(parts) == 6 for parts in batch.column("parts").to_pylist())


def test_shuffled_rows_follow_from_the_seed(call, corpus, tmp_path):
    for name, seed in {"a": 1, "b": 1, "c": 2}.items():
        path = tmp_path / name
        asked = ("--shuffle", "--seed", seed, "--limit", 9)
        assert call(corpus, "-o", path, *asked)[0] == 0
    found = {
        name: [i for b in Store.load(tmp_path / name).batches() for i in b["id"]]
        for name in "abc"
    }
    assert found["a"] == found["b"] != found["c"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--shard", "3/2"], "`--shard` is '3/2'"),
        (["--shard", "half"], "`--shard` is 'half'"),
        (["--engine", "spark"], "known are local, ray"),
        (["--null", "labels"], "known are none, targets, weights"),
        (["--diagnostics"], "are of single results"),
        (["--concurrency", "2"], "`--concurrency` need `--engine ray`"),
        (["--prompt-column", "story"], "'story'"),
        (["--limit", "0"], "greater than or equal to 1"),
        (["--baseline", "moon"], "moon"),
    ],
)
def test_bad_options(call, corpus, tmp_path, arguments, says):
    code, out, err = call(corpus, "-o", tmp_path / "run", *arguments)
    assert code == 2
    assert out == ""
    assert says in " ".join(err.replace("│", " ").split())
    assert not (tmp_path / "run").exists()


def test_bad_places(call, corpus, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("…")
    code, _, err = call(corpus, "-o", tmp_path / "mine")
    assert (code, "holds no run of iglens" in err) == (2, True)
    assert corpora.contents(tmp_path / "mine") == {"thesis.tex": "…".encode()}
    code, _, err = call(tmp_path / "nothing.jsonl", "-o", tmp_path / "run")
    assert (code, "nothing.jsonl" in err) == (2, True)


def test_a_run_without_a_single_result(call, tmp_path):
    """Everything failed: that is no success, and the reasons are kept."""
    (tmp_path / "bad.jsonl").write_text('{"prompt": 3}\n{"prompt": null}\n')
    code, _, err = call(tmp_path / "bad.jsonl", "-o", tmp_path / "run")
    assert code == 2
    assert "No row could be explained" in err
    lines = (tmp_path / "run" / "failures.jsonl").read_text().splitlines()
    assert len(lines) == 2


def test_other_settings_are_refused(call, corpus, tmp_path):
    assert call(corpus, "-o", tmp_path / "run", "--limit", 5)[0] == 0
    before = corpora.contents(tmp_path / "run")
    code, _, err = call(corpus, "-o", tmp_path / "run", "--limit", 6)
    assert code == 2
    assert "selection limit was 5, is 6" in " ".join(err.split())
    assert corpora.contents(tmp_path / "run") == before


def test_profile_says_where_the_time_went(call, corpus, tmp_path):
    _, _, err = call(corpus, "-o", tmp_path / "run", "--limit", 5, "--profile")
    for stage in ("read", "load", "forward", "readout", "write", "total"):
        assert any(line.split()[:1] == [stage] for line in err.splitlines())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_on_ray(corpus, folder, tmp_path):
    """The command itself, in processes of its own."""
    import os
    import subprocess
    import sys

    common = ["--model", folder, "--shard-rows", 10, "--quiet"]
    for name, more in {
        "here": [],
        "ray": ["--engine", "ray", "--concurrency", 2],
    }.items():
        command = ["run", corpus, "-o", tmp_path / name, *common, *more]
        subprocess.run(
            [sys.executable, "-m", "iglens", *map(str, command)],
            check=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            timeout=300,
        )
    here = corpora.contents(tmp_path / "here")
    assert corpora.contents(tmp_path / "ray") == here
