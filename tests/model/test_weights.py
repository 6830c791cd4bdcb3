import hashlib
import os

import pytest

from iglens.model.loading.cache import cache_root
from iglens.model.weights import weights_sha256


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IGLENS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "model"
    place.mkdir()
    return place


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def test_one_file_has_its_own_hash(folder):
    (folder / "model.safetensors").write_bytes(b"weights")
    assert weights_sha256(folder) == sha256(b"weights")
    assert weights_sha256(folder / "model.safetensors") == sha256(b"weights")


def test_a_folder_without_weights_has_none(folder):
    (folder / "config.json").write_text("{}")
    assert weights_sha256(folder) is None


def test_a_changed_file_has_another_hash(folder):
    file = folder / "model.safetensors"
    file.write_bytes(b"weights")
    before = weights_sha256(folder)
    file.write_bytes(b"heavier")
    os.utime(file, ns=(1, 1))
    assert weights_sha256(folder) == sha256(b"heavier") != before


def test_a_hash_is_read_once_per_size_and_time(folder):
    """A file of the same size and time is not read again: that is the cache."""
    file = folder / "model.safetensors"
    file.write_bytes(b"weights")
    stat = file.stat()
    before = weights_sha256(folder)
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert weights_sha256(folder) == before
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert weights_sha256(folder) == sha256(b"WEIGHTS")


def test_a_file_of_another_size_is_read_again_whatever_its_time(folder):
    file = folder / "model.safetensors"
    for content in (b"weights", b"more weights"):
        file.write_bytes(content)
        os.utime(file, ns=(1, 1))
        assert weights_sha256(folder) == sha256(content)


def test_two_files_of_one_name_are_told_apart(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for place, content in ((folder, b"one"), (other, b"two")):
        (place / "model.safetensors").write_bytes(content)
        os.utime(place / "model.safetensors", ns=(1, 1))
    assert weights_sha256(folder) == sha256(b"one")
    assert weights_sha256(other) == sha256(b"two")


def shards(folder, *contents):
    for index, content in enumerate(contents):
        (folder / f"model-{index}.safetensors").write_bytes(content)


def test_several_files_have_one_hash_of_names_and_contents(folder):
    shards(folder, b"one", b"two")
    listing = "".join(
        f"model-{i}.safetensors {sha256(c)}\n" for i, c in enumerate((b"one", b"two"))
    )
    assert weights_sha256(folder) == sha256(listing.encode())
    before = weights_sha256(folder)
    shards(folder, b"two!", b"one!")
    assert weights_sha256(folder) != before


def test_safetensors_come_before_other_forms(folder):
    (folder / "pytorch_model.bin").write_bytes(b"old")
    assert weights_sha256(folder) == sha256(b"old")
    (folder / "model.safetensors").write_bytes(b"new")
    assert weights_sha256(folder) == sha256(b"new")


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"stamp": 3}'])
def test_a_damaged_note_is_made_again(folder, damage):
    (folder / "model.safetensors").write_bytes(b"weights")
    weights_sha256(folder)
    [note] = (cache_root() / "hashes").iterdir()
    note.write_text(damage)
    assert weights_sha256(folder) == sha256(b"weights")
    assert note.read_text() != damage


def test_a_cache_that_cannot_be_written_is_only_slower(folder, cache):
    (folder / "model.safetensors").write_bytes(b"weights")
    cache.write_text("a file, no folder")
    assert weights_sha256(folder) == sha256(b"weights")


def test_a_link_has_the_hash_of_its_file(folder, tmp_path):
    file = tmp_path / "blob"
    file.write_bytes(b"weights")
    (folder / "model.safetensors").symlink_to(file)
    assert weights_sha256(folder) == sha256(b"weights")
    file.write_bytes(b"other weights")
    assert weights_sha256(folder) == sha256(b"other weights")
