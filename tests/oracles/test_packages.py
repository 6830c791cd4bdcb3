"""Packages to compare with: never wanted by the package, never left out in CI."""

import re
import tomllib
from pathlib import Path

import pytest
from packages import oracle

ROOT = Path(__file__).parents[2]


def installed():
    """What `make oracles` installs besides the package."""
    (found,) = re.findall(
        r"-e '\.\[dev\]' (.+)$", (ROOT / "Makefile").read_text(), re.M
    )
    return found.split()


def test_a_missing_package_is_a_skip_that_names_the_target(monkeypatch):
    monkeypatch.delenv("IGLENS_NEEDS_ORACLES", raising=False)
    with pytest.raises(pytest.skip.Exception, match="make oracles"):
        oracle("not_there.at_all")


def test_a_missing_package_is_a_failure_where_it_must_be_there(monkeypatch):
    monkeypatch.setenv("IGLENS_NEEDS_ORACLES", "1")
    with pytest.raises(ModuleNotFoundError):
        oracle("not_there.at_all")


def test_a_package_that_is_there_is_imported():
    assert oracle("json.decoder").JSONDecoder


def test_packages_of_the_target_are_pinned_and_no_dependencies():
    assert installed() == ["captum", "transformer-lens", "triton"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = str((project["dependencies"], project["optional-dependencies"])).lower()
    pinned = (ROOT / "constraints.txt").read_text()
    for name in installed():
        assert f"\n{name}==" in pinned
        assert name not in wanted
