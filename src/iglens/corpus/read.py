"""Corpora as they lie around: JSONL, CSV, Parquet, text, datasets of Hugging Face.

Every reader gives lines one after the other, without holding them, and a line it
cannot read as `Broken`, so that one bad line costs one line.
"""

import csv
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..errors import ArgumentError, ArtifactError
from ..storage.atomic import reason
from .items import Broken, Line

BUILTIN = "builtin"
"""As an input: the prompts that come with the package."""

_HASHED_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class AbstractInput(ABC):
    """Where lines come from.

    Attributes:
        name: What the user calls it.
    """

    name: str

    @abstractmethod
    def lines(self) -> Iterator[Line]:
        """Every line, in order."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Changes when what `lines` gives does."""


@dataclass(frozen=True)
class _File(AbstractInput):
    """A file on disk."""

    path: Path

    def fingerprint(self) -> str:
        """SHA-256 of its bytes."""
        found = hashlib.sha256()
        with _reading(self.path), self.path.open("rb") as file:
            while block := file.read(_HASHED_AT_ONCE):
                found.update(block)
        return f"sha256:{found.hexdigest()}"


class JsonLines(_File):
    """One JSON object per line; empty lines are none."""

    def lines(self) -> Iterator[Line]:
        """Every object; what is none is broken."""
        with _reading(self.path), self.path.open("rb") as file:
            for number, data in enumerate(file, 1):
                if data.strip():
                    yield self._line(number, data)

    @staticmethod
    def _line(number: int, data: bytes) -> Line:
        """One line."""
        try:
            found = json.loads(data.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            return Broken(f"Line {number} is no JSON: {error}.")
        if not isinstance(found, dict):
            kind = type(found).__name__
            return Broken(f"Line {number} holds a {kind}, not an object.")
        return found


@dataclass(frozen=True)
class Separated(_File):
    """Comma- or tab-separated values with a header; empty cells are none."""

    delimiter: str = ","

    def lines(self) -> Iterator[Line]:
        """Every line below the header."""
        with _reading(self.path), _as_text(self.path) as file:
            reader = csv.reader(file, delimiter=self.delimiter)
            header = next(reader, [])
            for cells in _cells(reader):
                if isinstance(cells, Broken):
                    yield cells
                elif cells:
                    yield self._line(reader.line_num, header, cells)

    @staticmethod
    def _line(number: int, header: list[str], cells: list[str]) -> Line:
        """One line."""
        if len(cells) != len(header):
            return Broken(
                f"Line {number} has {len(cells)} cells, the header {len(header)}."
            )
        return {k: v if v else None for k, v in zip(header, cells, strict=True)}


class ParquetFile(_File):
    """A Parquet file, read group by group."""

    def lines(self) -> Iterator[Line]:
        """Every row."""
        import pyarrow
        import pyarrow.parquet

        try:
            with _reading(self.path), pyarrow.parquet.ParquetFile(self.path) as file:
                for batch in file.iter_batches(batch_size=1024):
                    yield from batch.to_pylist()
        except pyarrow.ArrowException as error:
            raise ArtifactError(
                f"{self.path} cannot be read as Parquet: {error}"
            ) from error


class TextLines(_File):
    """One prompt per line; empty lines are none."""

    def lines(self) -> Iterator[Line]:
        """Every line, as a prompt."""
        with _reading(self.path), self.path.open("rb") as file:
            for number, data in enumerate(file, 1):
                if data.strip():
                    yield self._line(number, data.rstrip(b"\r\n"))

    @staticmethod
    def _line(number: int, data: bytes) -> Line:
        """One line."""
        try:
            return {"prompt": data.decode("utf-8-sig")}
        except UnicodeDecodeError as error:
            return Broken(f"Line {number} is no UTF-8: {error}.")


class Builtin(AbstractInput):
    """The prompts that come with the package."""

    def lines(self) -> Iterator[Line]:
        """Every one."""
        from ..data import prompts

        yield from prompts()

    def fingerprint(self) -> str:
        """SHA-256 of them all."""
        text = json.dumps([*self.lines()], sort_keys=True)
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


@dataclass(frozen=True)
class Dataset(AbstractInput):
    """A dataset of Hugging Face, from a folder or the hub."""

    split: str | None = None
    config: str | None = None

    def lines(self) -> Iterator[Line]:
        """Every row."""
        yield from self._loaded()

    def fingerprint(self) -> str:
        """The library's own."""
        return f"datasets:{self._loaded()._fingerprint}"

    def _loaded(self) -> Any:
        """One split of it.

        Raises:
            ArgumentError: If there is no such dataset, or it has several splits.
        """
        try:
            import datasets
        except ImportError as error:
            raise ArgumentError(
                f"{self.name!r} is no file, and reading it as a dataset needs the "
                'datasets library: pip install "iglens[data]".'
            ) from error
        datasets.disable_progress_bars()
        folder = Path(self.name)
        try:
            if folder.is_dir() and not _holds_data_files(folder):
                found = datasets.load_from_disk(str(folder))
            else:
                found = datasets.load_dataset(self.name, self.config)
        except Exception as error:  # the library raises whatever its parts raise
            line = str(error).strip().split("\n", 1)[0]
            raise ArgumentError(
                f"{self.name!r} is neither a file nor a dataset that can be loaded "
                f"({type(error).__name__}: {line})."
            ) from error
        return self._split_of(found) if isinstance(found, dict) else found

    def _split_of(self, found: dict[str, Any]) -> Any:
        """The one split that is meant."""
        if self.split is None and len(found) == 1:
            return next(iter(found.values()))
        if self.split not in found:
            raise ArgumentError(
                f"{self.name!r} has the splits {', '.join(found)}; choose one with "
                "`--split`."
            )
        return found[self.split]


def _holds_data_files(folder: Path) -> bool:
    """Whether a folder holds data files, and is not one that the library saved."""
    return not (
        (folder / "state.json").exists() or (folder / "dataset_dict.json").exists()
    )


def _as_text(path: Path) -> IO[str]:
    """A file as UTF-8; what is none comes out as replacement characters."""
    return path.open(encoding="utf-8-sig", errors="replace", newline="")


def _cells(reader: Any) -> Iterator[list[str] | Broken]:
    """The cells of every line of a `csv.reader`."""
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Broken(f"Line {reader.line_num} cannot be read: {error}.")


_FILES: dict[str, type[_File]] = {
    ".jsonl": JsonLines,
    ".ndjson": JsonLines,
    ".csv": Separated,
    ".parquet": ParquetFile,
    ".txt": TextLines,
}


def open_input(
    name: str, *, split: str | None = None, config: str | None = None
) -> AbstractInput:
    """The input that a name stands for.

    Args:
        name: A file by its extension, a folder or hub name of a dataset, or "builtin".
        split: Split of a dataset that has several.
        config: Configuration of a dataset that has several.

    Raises:
        ArgumentError: If there is no such thing.
    """
    path = Path(name).expanduser()
    extension = path.suffix.lower()
    if name == BUILTIN:
        return Builtin(name)
    if path.is_file() or extension in (*_FILES, ".tsv"):
        if not path.is_file():
            raise ArgumentError(f"There is no file {name}.")
        if extension == ".tsv":
            return Separated(name, path, "\t")
        if extension not in _FILES:
            known = ", ".join([*_FILES, ".tsv"])
            raise ArgumentError(f"{name} is none of the files that are read: {known}.")
        return _FILES[extension](name, path)
    return Dataset(name, split, config)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What goes wrong with a file, in a sentence."""
    try:
        yield
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {reason(error)}.") from error
