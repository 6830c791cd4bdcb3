import errno
from pathlib import Path

import pytest
from fake_wheels import copy_convert, fake_model, write_download

from iglens.errors import ModelLoadError
from iglens.model.loading.cache import cache_root, is_complete, manifest
from iglens.model.loading.embedded import build

HOME = Path.home()


@pytest.mark.parametrize(
    ("environ", "platform", "expected"),
    [
        ({"IGLENS_CACHE": "/big/disk"}, "linux", Path("/big/disk")),
        ({"IGLENS_CACHE": "/big/disk"}, "win32", Path("/big/disk")),
        ({"IGLENS_CACHE": "~/models"}, "darwin", HOME / "models"),
        ({"IGLENS_CACHE": "here"}, "linux", Path.cwd() / "here"),
        ({}, "linux", HOME / ".cache/iglens"),
        ({"IGLENS_CACHE": "", "XDG_CACHE_HOME": ""}, "linux", HOME / ".cache/iglens"),
        ({"XDG_CACHE_HOME": "/var/me"}, "linux", Path("/var/me/iglens")),
        ({"XDG_CACHE_HOME": "relative"}, "linux", HOME / ".cache/iglens"),
        ({"XDG_CACHE_HOME": "/var/me"}, "darwin", HOME / "Library/Caches/iglens"),
        ({"LOCALAPPDATA": "/Local"}, "win32", Path("/Local/iglens")),
        ({}, "win32", HOME / "AppData/Local/iglens"),
    ],
)
def test_the_cache_is_where_the_platform_has_it(environ, platform, expected):
    assert cache_root(environ, platform) == expected


@pytest.fixture
def built(tmp_path):
    return build(fake_model(), tmp_path, download=write_download, convert=copy_convert)


def test_what_was_built_is_complete(built):
    assert is_complete(built, fake_model())
    content = manifest(built)
    assert content["gguf_sha256"] == fake_model().sha256
    assert content["note"] == "made up"
    assert content["wheels"] == ["iglens-fake-part0==1.0", "iglens-fake-part1==1.0"]
    assert set(content["versions"]) == {"gguf", "transformers"}


def shorten(folder):
    (folder / "model.safetensors").write_bytes(b"first")


def remove(folder):
    (folder / "model.safetensors").unlink()


def scribble(folder):
    (folder / "iglens.json").write_text("{")


def empty(folder):
    (folder / "iglens.json").write_text("[]")


@pytest.mark.parametrize("damage", [shorten, remove, scribble, empty])
def test_a_damaged_copy_is_noticed_and_made_again(built, damage):
    damage(built)
    assert not is_complete(built, fake_model())
    again = build(
        fake_model(), built.parent, download=write_download, convert=copy_convert
    )
    assert again == built
    assert is_complete(built, fake_model())
    assert sorted(path.name for path in built.parent.iterdir()) == [
        ".fake.lock",
        "fake",
    ]


def test_another_version_of_the_same_name_is_not_this_model(built):
    assert not is_complete(built, fake_model(sha256="0" * 64))


def test_a_new_model_is_as_readable_as_the_users_other_files(built, tmp_path):
    (tmp_path / "plain").touch()
    expected = (tmp_path / "plain").stat().st_mode & 0o777
    assert {path.stat().st_mode & 0o777 for path in built.iterdir()} == {expected}


def test_a_full_disk_is_said_before_the_download(tmp_path):
    with pytest.raises(ModelLoadError, match=r"MB left, and 4611686018427 MB are"):
        build(fake_model(disk_bytes=2**62), tmp_path, download=no_download)


def no_download(model, folder, progress):
    raise AssertionError("downloaded")


def test_a_cache_that_is_no_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ModelLoadError, match=r"could not be written.*IGLENS_CACHE"):
        build(fake_model(), tmp_path / "file" / "models", download=no_download)


def test_a_disk_that_fills_up_on_the_way_is_one_line(tmp_path):
    def convert(model, gguf, folder, progress):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ModelLoadError, match="written: No space left on device"):
        build(fake_model(), tmp_path, download=write_download, convert=convert)
    assert [path.name for path in tmp_path.iterdir()] == [".fake.lock"]
