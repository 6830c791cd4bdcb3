"""Whoever is killed, whenever: what is there stays, and the end is the same."""

import json
import os
import random
import resource
import signal
import time

import pytest
from corpora import contents

from iglens.corpus import Selection, Store, run
from iglens.corpus.store import check_place
from iglens.errors import ArtifactError, OutputError
from iglens.explaining import Reader

SMALL = Selection(shard_rows=3)


@pytest.fixture
def whole(tiny, corpus, tmp_path):
    """An undisturbed run."""
    path = tmp_path / "whole"
    run(tiny, corpus, path, selection=SMALL)
    return path


def in_a_child(do):
    """Start something in a child of this process, which has the model already."""
    child = os.fork()
    if child == 0:
        try:
            do()
        finally:
            os._exit(0)
    return child


def killed_runs(tiny, corpus, path, times, seed):
    """Kill so many runs at random moments; how many had written something new."""
    rng, progress = random.Random(seed), set()
    for _ in range(times):
        child = in_a_child(lambda: run(tiny, corpus, path, selection=SMALL))
        time.sleep(rng.uniform(0.0, 0.5))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        progress.add(len([*path.glob("shards/*.parquet")]))
    return progress


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_killed_a_dozen_times(tiny, corpus, tmp_path, whole):
    path = tmp_path / "killed"
    progress = killed_runs(tiny, corpus, path, 12, seed=1)
    assert len(progress) > 1  # it was killed in the midst of it
    run(tiny, corpus, path, selection=SMALL)
    assert contents(path) == contents(whole)


def test_nothing_is_computed_twice(tiny, corpus, whole):
    before = {p: p.stat().st_mtime_ns for p in whole.glob("shards/*")}
    asked = []
    hook = tiny.model.register_forward_pre_hook(lambda *given: asked.append(given))
    try:
        outcome = run(tiny, corpus, whole, selection=SMALL)
    finally:
        hook.remove()
    assert asked == []
    assert outcome.n_found == outcome.n_rows
    assert before == {p: p.stat().st_mtime_ns for p in whole.glob("shards/*")}


@pytest.mark.parametrize("left", [0, 10, 500])
def test_a_truncated_shard_is_computed_anew(tiny, corpus, whole, left):
    before = contents(whole)
    shard = Store.load(whole).shard_path(2)
    shard.write_bytes(shard.read_bytes()[:left])
    with pytest.raises(ArtifactError, match=r"00002\.parquet is no whole shard"):
        [*Store.load(whole).batches()]
    outcome = run(tiny, corpus, whole, selection=SMALL)
    assert len(outcome.damaged) == 1
    assert contents(whole) == before


def test_a_shard_of_another_run(tiny, corpus, whole, tmp_path):
    other = tmp_path / "other"
    run(tiny, corpus, other, selection=SMALL, reader=Reader(unit="log_odds"))
    foreign = Store.load(other).shard_path(1).read_bytes()
    Store.load(whole).shard_path(1).write_bytes(foreign)
    with pytest.raises(ArtifactError, match="of another run"):
        [*Store.load(whole).shards()]
    outcome = run(tiny, corpus, whole, selection=SMALL)
    assert "another run" in outcome.damaged[0]


def test_other_settings_are_refused(tiny, corpus, whole):
    before = contents(whole)
    with pytest.raises(OutputError, match='unit was "probability", is "log_odds"'):
        run(tiny, corpus, whole, selection=SMALL, reader=Reader(unit="log_odds"))
    with pytest.raises(OutputError, match="selection shard_rows was 3, is 4"):
        run(tiny, corpus, whole, selection=Selection(shard_rows=4))
    corpus.write_text(corpus.read_text() + '{"prompt": "abc"}\n')
    with pytest.raises(OutputError, match="fingerprint"):
        run(tiny, corpus, whole, selection=SMALL)
    assert contents(whole) == before


def test_other_folders_are_refused(tiny, corpus, tmp_path):
    folder = tmp_path / "letters"
    folder.mkdir()
    (folder / "dear.txt").write_text("diary")
    with pytest.raises(OutputError, match="not empty and holds no run"):
        run(tiny, corpus, folder)
    assert contents(folder) == {"dear.txt": b"diary"}
    with pytest.raises(OutputError, match="no folder"):
        run(tiny, corpus, folder / "dear.txt")
    with pytest.raises(ArtifactError, match="holds no run"):
        Store.load(folder)
    (folder / "run.json").write_text('{"schema": "iglens.run/9"}')
    with pytest.raises(ArtifactError, match=r"'iglens\.run/9'"):
        Store.load(folder)
    (folder / "run.json").write_text("{")
    with pytest.raises(ArtifactError, match="cannot be read"):
        Store.load(folder)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_read_only_folder(tmp_path):
    """As anybody but root, who may write anywhere."""
    folder, said = tmp_path / "read-only", tmp_path / "said"
    folder.mkdir(mode=0o555)
    said.touch()
    said.chmod(0o666)
    for parent in (tmp_path, *tmp_path.parents):
        if not parent.stat().st_mode & 0o001:  # pytest keeps others out
            parent.chmod(0o755)

    def as_nobody():
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        try:
            check_place(folder / "run")
        except OutputError as error:
            said.write_text(str(error))

    os.waitpid(in_a_child(as_nobody), 0)
    assert "permission denied" in said.read_text()
    assert contents(folder) == {}


def test_a_parent_that_is_a_file(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(OutputError, match="Cannot write"):
        check_place(tmp_path / "x" / "y" / "z")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_full_disk_loses_nothing(tiny, corpus, tmp_path, whole):
    """A write that the system cuts short: one line, and what was there stays."""
    path, said = tmp_path / "full", tmp_path / "said"

    def with_little_room():
        first = Store.load(whole).shard_path(0).stat().st_size
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (first, first))
        try:
            run(tiny, corpus, path, selection=SMALL)
        except OutputError as error:
            said.write_text(str(error))

    os.waitpid(in_a_child(with_little_room), 0)
    assert "Cannot write" in said.read_text()
    assert "file too large" in said.read_text()
    assert [*path.rglob("*.tmp")] == []
    assert 0 < len([*path.glob("shards/*.parquet")]) < Store.load(path).n_shards
    run(tiny, corpus, path, selection=SMALL)
    assert contents(path) == contents(whole)


def test_what_a_killed_writer_left_goes(tiny, corpus, whole):
    before = contents(whole)
    (whole / "shards" / ".00002-0123456789abcdef.tmp").write_bytes(b"half")
    (whole / ".iglens-0123456789abcdef.tmp").write_bytes(b"half")
    run(tiny, corpus, whole, selection=SMALL)
    assert contents(whole) == before


def test_run_json_says_what_was_asked(whole):
    said = json.loads((whole / "run.json").read_text())
    assert said["schema"] == "iglens.run/1"
    assert said["n_rows"] == 42
    assert said["input"]["columns"]["answer"] == "answer"
    assert said["reading"]["unit"] == "probability"
    assert set(said["versions"]) == {"iglens", "torch", "transformers"}
    assert "path" not in said["model"]
