"""The only place where results touch the disk."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ..errors import ArtifactError, OutputError
from ..records import Attribution
from .atomic import check_replaceable, reason, replacing
from .json_form import json_bytes
from .json_reader import from_json_bytes
from .safetensors_form import from_safetensors_bytes, safetensors_bytes
from .table_form import csv_bytes, parquet_bytes

FORMATS: dict[str, str] = {
    ".safetensors": "complete and exact, for `load`",
    ".json": "complete, for people and other programs",
    ".csv": "table, one line per row and segment",
    ".parquet": "the same table, typed and compressed",
}
"""Every extension that can be written, and what it is for."""

WRITERS: dict[str, Callable[[Attribution], bytes]] = {
    ".safetensors": safetensors_bytes,
    ".json": json_bytes,
    ".csv": csv_bytes,
    ".parquet": parquet_bytes,
}
"""What makes the bytes of each."""

_READERS: dict[str, Callable[[bytes], Attribution]] = {
    ".safetensors": from_safetensors_bytes,
    ".json": from_json_bytes,
}


def save(
    attribution: Attribution,
    path: Path,
    file_format: str | None = None,
    *,
    also: Mapping[str, Callable[[Attribution], bytes]] | None = None,
) -> None:
    """Write a result; the format follows from the extension unless it is named.

    The file appears whole or not at all: what stood there before stays until the new
    one is complete.

    Args:
        attribution: The result.
        path: Where to, with one of the extensions in `FORMATS`.
        file_format: One of them, without its dot, for a path that has another.
        also: What makes further formats, by extension: documents and pictures.

    Raises:
        OutputError: If the format is unknown or the place not writable.
    """
    writers = {**WRITERS, **(also or {})}
    data = writers[known_format(path, file_format, writers)](attribution)
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def load(path: Path) -> Attribution:
    """The result that `save` wrote as `.safetensors` or `.json`.

    Raises:
        ArtifactError: If there is no such file, or it is not a whole result of a
            schema this version reads.
    """
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise ArtifactError(f"{path} cannot be read: {reason(error)}.") from error
    extension = path.suffix.lower()
    if extension not in _READERS:
        why = "tables are for reading by others; " if extension in FORMATS else ""
        known = " or ".join(_READERS)
        raise ArtifactError(f"{path} cannot be loaded: {why}load a {known} file.")
    try:
        return _READERS[extension](data)
    except ArtifactError as error:
        raise ArtifactError(f"{path} cannot be read: {error}.") from error


def check_writable(
    path: Path, file_format: str | None = None, formats: Iterable[str] = FORMATS
) -> None:
    """Refuse a place that `save` could not write to, before the long run.

    Writes and removes an empty file next to it; the file itself is not touched.

    Args:
        path: Where a result is to go.
        file_format: As in `save`.
        formats: Extensions that what is written has; those of a result.

    Raises:
        OutputError: If the format is unknown, the folder missing or not writable,
            or something other than a writable file stands there.
    """
    known_format(path, file_format, formats)
    check_replaceable(path)


def known_format(
    path: Path, file_format: str | None, formats: Iterable[str] = FORMATS
) -> str:
    """The extension of a format there is, in lower case.

    Raises:
        OutputError: If there is no such format.
    """
    extension = path.suffix.lower()
    if file_format is not None:
        extension = f".{file_format.lower().removeprefix('.')}"
    known = list(formats)
    if extension not in known:
        what = "its extension is" if file_format is None else "the format is"
        raise OutputError(
            f"Cannot write {path}: {what} {extension or 'missing'!r}, not one of "
            f"{', '.join(known)}."
        )
    return extension
