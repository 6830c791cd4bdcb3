"""Packages of others to compare with: they are there, or their tests are skipped."""

import importlib
import os

import pytest


def oracle(name):
    """A package's module, for the top of a test module.

    Where it is not installed the whole test module is skipped, unless
    `IGLENS_NEEDS_ORACLES` says that it must be there, as `make oracles` does.
    """
    if os.environ.get("IGLENS_NEEDS_ORACLES"):
        return importlib.import_module(name)
    package = name.split(".")[0]
    return pytest.importorskip(
        name, reason=f"{package} (an oracle, tests only) is not installed: make oracles"
    )
