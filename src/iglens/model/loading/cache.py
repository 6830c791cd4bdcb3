"""The folder converted models live in: complete or absent, never in between.

CACHE/models/NAME/            a model; `iglens.json` in it says what it is
CACHE/models/.NAME.*.partial  work of a run that is not over, or that died
CACHE/models/.NAME.lock       held while one run works on NAME
"""

import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ...errors import ModelLoadError
from .catalogue import EmbeddedModel
from .child import Progress

_MANIFEST = "iglens.json"
_SCHEMA = "iglens.embedded/1"  # raise it when a conversion must be done again


def cache_root(
    environ: Mapping[str, str] = os.environ, platform: str = sys.platform
) -> Path:
    """The folder of this user's cache: `IGLENS_CACHE`, else where the system has it.

    Raises:
        ModelLoadError: If the user has no home folder.

    Example:
        >>> cache_root({"XDG_CACHE_HOME": "/var/me"}, "linux").as_posix()
        '/var/me/iglens'
    """
    if chosen := environ.get("IGLENS_CACHE"):
        return Path(chosen).expanduser().absolute()
    if platform == "darwin":
        base = Path("~/Library/Caches")
    elif platform == "win32":
        base = Path(environ.get("LOCALAPPDATA") or "~/AppData/Local")
    else:
        base = Path(environ.get("XDG_CACHE_HOME") or "~/.cache")
        if not base.is_absolute():  # the XDG specification: ignore relative ones
            base = Path("~/.cache")
    try:
        return base.expanduser() / "iglens"
    except RuntimeError as error:  # no HOME, and a user the system does not know
        raise ModelLoadError(
            "This user has no home folder to keep models in. Set IGLENS_CACHE to a "
            "folder that can be written."
        ) from error


def models_folder() -> Path:
    """Where converted models are."""
    return cache_root() / "models"


def manifest(folder: Path) -> dict[str, Any] | None:
    """What a converted model's folder says about itself; None if it is not one."""
    try:
        content = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def is_complete(folder: Path, model: EmbeddedModel) -> bool:
    """Whether `folder` holds this very model, with every file in its full size."""
    content = manifest(folder) or {}
    known = (content.get("schema"), content.get("gguf_sha256"))
    if known != (_SCHEMA, model.sha256):
        return False
    try:
        return all(
            (folder / name).stat().st_size == size
            for name, size in content["bytes"].items()
        )
    except (OSError, KeyError):
        return False


def seal(folder: Path, model: EmbeddedModel) -> None:
    """Write `iglens.json` and force every file of a new model to the disk."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    content = {
        "schema": _SCHEMA,
        "name": model.name,
        "title": model.title,
        "licence": model.licence,
        "note": model.note,
        "wheels": model.wheels,
        "files": model.files,
        "gguf_sha256": model.sha256,
        "versions": {name: version(name) for name in ("transformers", "gguf")},
        "bytes": {path.name: path.stat().st_size for path in files},
    }
    written = folder / _MANIFEST
    written.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    mode = written.stat().st_mode & 0o777
    for path in [*files, written]:
        path.chmod(mode)  # weights come out private, whatever the user's umask says
        with path.open("rb+") as file:
            os.fsync(file.fileno())


@contextmanager
def exclusive(model: EmbeddedModel, models: Path, progress: Progress) -> Iterator[None]:
    """Hold the model's lock: a second run waits here until the first is through."""
    models.mkdir(parents=True, exist_ok=True)
    lock = FileLock(models / f".{model.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress("waiting for another run", 0, None)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def workspace(model: EmbeddedModel, models: Path) -> Iterator[Path]:
    """An empty folder beside the target that is gone afterwards, come what may.

    Call it under `exclusive`: folders of the same kind then belong to dead runs,
    and are removed first.
    """
    for stale in models.glob(f".{model.name}.*.partial"):
        shutil.rmtree(stale, ignore_errors=True)
    folder = models / f".{model.name}.{secrets.token_hex(4)}.partial"
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(built: Path, target: Path) -> None:
    """Put a finished folder in its place, in one step as far as a reader can see.

    What is there already is incomplete or of another version, and goes.
    """
    if target.exists():
        target.rename(built.with_name("replaced"))
    built.rename(target)
    with suppress(OSError):  # Windows opens no folders; the rename is done anyway
        handle = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def check_space(models: Path, needed: int) -> None:
    """Say so now rather than after ten minutes.

    Raises:
        ModelLoadError: If the disk has less than `needed` bytes left.
    """
    free = shutil.disk_usage(models).free
    if free < needed:
        raise ModelLoadError(
            f"`{models}` has {free / 1e6:.0f} MB left, and {needed / 1e6:.0f} MB are "
            "needed. Free some, or set IGLENS_CACHE to a folder on another disk."
        )
