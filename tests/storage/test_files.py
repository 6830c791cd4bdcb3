import os
import stat
from pathlib import Path

import numpy as np
import pytest
from factories import assert_same, make_attribution
from isolated import run_python
from safetensors.numpy import save_file

from iglens import storage
from iglens.errors import ArtifactError, OutputError
from iglens.storage import FORMATS, check_writable, load, save
from iglens.storage import files as storage_files

COMPLETE = [".safetensors", ".json"]
TABLES = [".csv", ".parquet"]


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_exported_names_are_these():
    assert (
        storage.__all__
        == sorted(storage.__all__)
        == [
            "FORMATS",
            "WRITERS",
            "answer_to_json",
            "attribution_from_json",
            "attribution_to_json",
            "check_writable",
            "flow_to_json",
            "interaction_to_json",
            "load",
            "promotion_to_json",
            "save",
        ]
    )
    assert [*FORMATS] == COMPLETE + TABLES


@pytest.mark.parametrize("extension", COMPLETE)
def test_a_complete_format_comes_back(tmp_path, extension):
    result = make_attribution(top=2, baseline="mean")
    path = tmp_path / f"result{extension}"
    save(result, path)
    assert_same(load(path), result)


@pytest.mark.parametrize("extension", FORMATS)
def test_saving_leaves_the_file_and_nothing_else(tmp_path, extension):
    save(make_attribution(), tmp_path / f"result{extension}")
    assert listing(tmp_path) == [f"result{extension}"]


@pytest.mark.parametrize("extension", FORMATS)
def test_saving_twice_replaces_the_file(tmp_path, extension):
    path = tmp_path / f"result{extension}"
    path.write_text("something else, and longer than it was" * 9999)
    save(make_attribution(), path)
    once = path.read_bytes()
    save(make_attribution(), path)
    assert path.read_bytes() == once


def test_capital_letters_in_the_extension_do_not_matter(tmp_path):
    result = make_attribution()
    save(result, tmp_path / "RESULT.JSON")
    assert_same(load(tmp_path / "RESULT.JSON"), result)


def test_a_new_file_has_the_permissions_of_any_other(tmp_path):
    (tmp_path / "plain.txt").touch()
    save(make_attribution(), tmp_path / "result.json")
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_a_replaced_file_keeps_its_permissions(tmp_path):
    path = tmp_path / "result.json"
    path.touch()
    path.chmod(0o640)
    save(make_attribution(), path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_saving_through_a_link_writes_the_file_behind_it(tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "real" / "result.json")
    check_writable(link)
    save(make_attribution(), link)
    assert link.is_symlink()
    assert listing(tmp_path / "real") == ["result.json"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path, monkeypatch, failure
):
    path = tmp_path / "result.json"
    path.write_text("old")

    def fail(descriptor):
        raise failure

    monkeypatch.setattr(os, "fsync", fail)
    expected = OutputError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        save(make_attribution(), path)
    assert path.read_text() == "old"
    assert listing(tmp_path) == ["result.json"]


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    path = tmp_path / "result.csv"
    with pytest.raises(OutputError) as caught:
        save(make_attribution(), path)
    assert str(caught.value) == f"Cannot write {path}: no space left on device."


@pytest.mark.parametrize("extension", FORMATS)
def test_a_writable_place_is_accepted_and_left_as_it_was(tmp_path, extension):
    check_writable(tmp_path / f"new{extension}")
    assert listing(tmp_path) == []
    old = tmp_path / f"old{extension}"
    old.write_text("old")
    check_writable(old)
    assert old.read_text() == "old"
    assert listing(tmp_path) == [old.name]


def save_something(path):
    save(make_attribution(), path)


def place_under_a_file(folder):
    (folder / "file").touch()
    return folder / "file" / "result.json"


def place_that_is_a_folder(folder):
    (folder / "result.json").mkdir()
    return folder / "result.json"


def place_that_is_a_pipe(folder):
    os.mkfifo(folder / "result.json")
    return folder / "result.json"


def place_that_links_to_itself(folder):
    (folder / "result.json").symlink_to(folder / "result.json")
    return folder / "result.json"


@pytest.mark.parametrize(
    "attempt", [check_writable, lambda p: save(make_attribution(), p)]
)
@pytest.mark.parametrize(
    ("place", "message"),
    [
        (lambda f: f / "missing" / "result.json", "there is no folder .*missing"),
        (place_under_a_file, "not a directory|there is no folder"),
        (place_that_is_a_folder, "it is a folder"),
        (place_that_is_a_pipe, "it is no regular file"),
        (place_that_links_to_itself, "(?i)symlink loop|symbolic links"),
        (lambda f: f / ("x" * 300 + ".json"), "name too long"),
        (lambda f: f / "null\0byte.json", "null"),
        (lambda f: f / "result.txt", r"'.txt', not one of .safetensors, .json, .csv"),
        (lambda f: f / "result", "'missing', not one of"),
        (lambda f: f / ".json", "'missing', not one of"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused(tmp_path, place, message, attempt):
    path = place(tmp_path)
    before = listing(tmp_path)
    with pytest.raises(OutputError, match=message) as caught:
        attempt(path)
    assert str(caught.value).startswith(f"Cannot write {path}: ")
    assert listing(tmp_path) == before


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_a_folder_that_takes_no_files_is_refused():
    with pytest.raises(OutputError, match="Cannot write /proc/result"):
        check_writable(Path("/proc/result.json"))


def test_a_folder_without_write_permission_is_refused(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    if os.access(tmp_path / "locked", os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(OutputError, match="permission denied"):
        check_writable(tmp_path / "locked" / "result.json")


def test_a_write_protected_file_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    path.touch()
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    with pytest.raises(OutputError, match="write-protected"):
        check_writable(path)


@pytest.mark.parametrize("extension", COMPLETE)
def test_a_missing_file_is_one_sentence(tmp_path, extension):
    path = tmp_path / f"result{extension}"
    with pytest.raises(ArtifactError) as caught:
        load(path)
    assert str(caught.value) == f"{path} cannot be read: no such file or directory."


@pytest.mark.parametrize("extension", COMPLETE)
def test_a_folder_is_no_result(tmp_path, extension):
    (tmp_path / f"result{extension}").mkdir()
    with pytest.raises(ArtifactError, match="cannot be read"):
        load(tmp_path / f"result{extension}")


@pytest.mark.parametrize("extension", COMPLETE)
@pytest.mark.parametrize("kept", [0, 5, 1000, -1])
def test_a_truncated_file_is_refused_by_name(tmp_path, extension, kept):
    path = tmp_path / f"result{extension}"
    save(make_attribution(), path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 2 if kept < 0 else kept])
    with pytest.raises(ArtifactError, match="not whole") as caught:
        load(path)
    assert str(caught.value).startswith(f"{path} cannot be read: it is not whole")


@pytest.mark.parametrize("extension", COMPLETE)
def test_random_bytes_are_refused(tmp_path, extension):
    path = tmp_path / f"result{extension}"
    path.write_bytes(np.random.default_rng(0).bytes(4096))
    with pytest.raises(ArtifactError, match="not whole or not"):
        load(path)


def test_the_weights_of_a_model_are_no_result(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"weight": np.zeros((2, 2), np.float32)}, path, {"format": "pt"})
    with pytest.raises(ArtifactError, match="not a result of iglens"):
        load(path)


@pytest.mark.parametrize("extension", TABLES)
def test_a_table_is_refused_with_what_to_load_instead(tmp_path, extension):
    path = tmp_path / f"result{extension}"
    save(make_attribution(), path)
    with pytest.raises(ArtifactError, match=r"tables are .*\.safetensors or \.json"):
        load(path)


def test_an_unknown_extension_is_refused_with_what_to_load_instead(tmp_path):
    path = tmp_path / "result.pkl"
    path.touch()
    with pytest.raises(ArtifactError, match=r"loaded: load a \.safetensors or"):
        load(path)


def test_every_format_has_a_writer():
    assert storage_files.WRITERS.keys() == FORMATS.keys()


def test_a_large_result_is_written_and_read_within_seconds(tmp_path):
    # in a fresh interpreter, as the type checks of a test run take most of the time
    run_python(
        f"""
from pathlib import Path
from time import perf_counter
from factories import make_attribution
from iglens.storage import FORMATS, load, save

result = make_attribution(rows=200, n_layers=80, top=5)
for extension in FORMATS:
    path = Path({str(tmp_path)!r}, "result" + extension)
    start = perf_counter()
    save(result, path)
    if extension in {COMPLETE}:
        load(path)
    assert perf_counter() - start < 3, extension
"""
    )
