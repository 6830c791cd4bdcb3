"""A run on disk: a folder that is whole at every moment, whoever is killed.

    run.json          what was asked, of what, with which versions; written first
    shards/NNNNN.parquet
                      results; the footer holds the rows that failed, too
    failures.jsonl    the same failures, for reading; made of the shards
    summary.json      statistics; made of the shards

Nothing in it depends on when, where or in how many turns it was written, so a run that
was interrupted ends up as one that was not, byte for byte.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArtifactError, OutputError
from ..storage.atomic import reason, replacing, write_whole
from .explainer import Failure, ShardContent

if TYPE_CHECKING:
    import pyarrow

SCHEMA = "iglens.run/1"

_KEY = b"iglens"
_SUFFIX = ".parquet"

_DERIVED = {"settings_sha256", "n_rows", "n_shards"}
"""Settings that follow from the others."""


@dataclass(frozen=True)
class Shard:
    """What a shard says of itself.

    Attributes:
        number: Its number, from 0.
        n_items: Rows of the input.
        n_rows: Explained tokens.
        segments: The path's segments; None if nothing was explained.
        failures: The rows that could not be explained.
    """

    number: int
    n_items: int
    n_rows: int
    segments: list[dict[str, Any]] | None
    failures: list[Failure]


@dataclass(frozen=True)
class Store:
    """A folder with a run in it.

    Attributes:
        path: The folder.
        settings: What `run.json` says.
    """

    path: Path
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> "Store":
        """A run that is there.

        Raises:
            ArtifactError: If there is none, or it is of another version.
        """
        try:
            settings = json.loads((path / "run.json").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ArtifactError(
                f"{path} holds no run of iglens: there is no run.json in it."
            ) from error
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path / 'run.json'} cannot be read: {error}.") from (
                error
            )
        found = settings.get("schema") if isinstance(settings, dict) else None
        if found != SCHEMA:
            raise ArtifactError(
                f"{path / 'run.json'} has the schema {found!r}; this version of iglens "
                f"reads {SCHEMA!r}."
            )
        return cls(path, settings)

    @classmethod
    def open(cls, path: Path, settings: Mapping[str, Any]) -> "Store":
        """A new run, or the same one to be gone on with.

        Raises:
            OutputError: If something else is in the folder, or a run of other settings.
        """
        wanted = json.loads(json.dumps({"schema": SCHEMA, **settings}))
        check_place(path)
        if not (path / "run.json").exists():
            _make_folder(path)
            write_whole(path / "run.json", _json(wanted))
        found = cls.load(path)
        if different := sorted(_differences(found.settings, wanted)):
            raise OutputError(
                f"{path} holds a run of other settings: {'; '.join(different)}. Give "
                "the settings it was begun with to go on with it, or another folder."
            )
        _make_folder(found._folder)
        return found

    @property
    def digest(self) -> str:
        """Hash of the settings."""
        return str(self.settings["settings_sha256"])

    @property
    def n_shards(self) -> int:
        """Shards that a whole run has."""
        return int(self.settings["n_shards"])

    @cached_property
    def _folder(self) -> Path:
        """Where shards are."""
        return self.path / "shards"

    def shard_path(self, number: int) -> Path:
        """Where a shard is, or will be."""
        return self._folder / f"{number:05d}{_SUFFIX}"

    def shard(self, number: int) -> Shard | None:
        """What a shard says of itself; None if it is not there yet.

        Raises:
            ArtifactError: If it is damaged, or of another run.
        """
        import pyarrow
        import pyarrow.parquet

        path = self.shard_path(number)
        try:
            metadata = pyarrow.parquet.read_metadata(path)
            said = json.loads((metadata.metadata or {})[_KEY])
            failures = [Failure(**each) for each in said.pop("failures")]
        except FileNotFoundError:
            return None
        except (OSError, KeyError, ValueError, TypeError, pyarrow.ArrowException) as e:
            raise ArtifactError(f"{path} is no whole shard: {_first_line(e)}.") from e
        if (said.pop("run"), said["number"]) != (self.digest, number):
            raise ArtifactError(f"{path} is a shard of another run.")
        return Shard(**said, n_rows=metadata.num_rows, failures=failures)

    def shards(self) -> Iterator[Shard]:
        """Every shard that is there, in order.

        Raises:
            ArtifactError: If one is damaged.
        """
        found = (self.shard(number) for number in range(self.n_shards))
        return (shard for shard in found if shard is not None)

    def batches(
        self, columns: list[str] | None = None, rows: int = 4096
    ) -> Iterator["pyarrow.RecordBatch"]:
        """All rows of all shards, some at a time.

        Raises:
            ArtifactError: If a shard is damaged: every page is checked.
        """
        import pyarrow
        import pyarrow.parquet

        for shard in self.shards():
            path = self.shard_path(shard.number)
            try:
                with pyarrow.parquet.ParquetFile(
                    path, page_checksum_verification=True
                ) as file:
                    yield from file.iter_batches(batch_size=rows, columns=columns)
            except (OSError, pyarrow.ArrowException) as error:
                raise ArtifactError(
                    f"{path} is damaged ({_first_line(error)}). Remove it and give "
                    "the command of the run again: it alone is computed anew."
                ) from error

    def write(self, number: int, content: ShardContent) -> None:
        """Add a shard, whole or not at all.

        Raises:
            OutputError: If it cannot be written; what is there stays.
        """
        import pyarrow.parquet

        said = {
            "run": self.digest,
            "number": number,
            "n_items": content.n_items,
            "segments": content.segments,
            "failures": [asdict(failure) for failure in content.failures],
        }
        text = json.dumps(said, ensure_ascii=True)
        table = content.table.replace_schema_metadata({_KEY: text.encode()})
        with replacing(self.shard_path(number), prefix=f".{number:05d}-") as temporary:
            pyarrow.parquet.write_table(
                table, temporary, compression="zstd", write_page_checksum=True
            )
        self.clear(number)

    def clear(self, number: int) -> None:
        """Remove what a killed writer of a shard left."""
        for left in self._folder.glob(f".{number:05d}-*.tmp"):
            left.unlink(missing_ok=True)

    def write_failures(self) -> int:
        """Write `failures.jsonl` anew, from the shards; how many there are."""
        lines = [
            json.dumps(asdict(failure), ensure_ascii=False)
            for shard in self.shards()
            for failure in shard.failures
        ]
        text = "".join(f"{line}\n" for line in lines)
        write_whole(self.path / "failures.jsonl", text.encode("utf-8", "replace"))
        return len(lines)

    def tidy(self) -> None:
        """Remove what killed writers left beside the shards."""
        for left in self.path.glob(".iglens-*.tmp"):
            left.unlink(missing_ok=True)


def check_place(path: Path) -> None:
    """Refuse a folder that a run could not be written to, before a model is loaded.

    Raises:
        OutputError: If something else is in it, or it is not writable.
    """
    from ..storage.atomic import check_replaceable

    if path.exists() and not path.is_dir():
        raise OutputError(f"Cannot write {path}: it is no folder.")
    if path.exists():
        others = [each for each in path.iterdir() if not each.name.startswith(".")]
        if others and not (path / "run.json").exists():
            raise OutputError(
                f"{path} is not empty and holds no run of iglens. Choose a new folder: "
                "nothing in it was touched."
            )
        check_replaceable(path / "run.json")
        return
    parent = next(each for each in path.resolve().parents if each.exists())
    check_replaceable(parent / "run.json")


def _make_folder(path: Path) -> None:
    """Make a folder, if it is not there.

    Raises:
        OutputError: If that cannot be done.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {reason(error)}.") from error


def _differences(
    found: Mapping[str, Any], wanted: Mapping[str, Any], where: str = ""
) -> Iterator[str]:
    """What two settings differ in, in words."""
    for name in found.keys() | wanted.keys():
        one, other = found.get(name), wanted.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differences(one, other, f"{where}{name} ")
        elif one != other and name not in _DERIVED:
            yield f"{where}{name} was {_short(one)}, is {_short(other)}"


def _short(value: Any) -> str:
    """A setting, in few words."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _json(value: Mapping[str, Any]) -> bytes:
    """Settings as a file."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _first_line(error: BaseException) -> str:
    """What an error says first."""
    return (str(error).strip() or type(error).__name__).split("\n", 1)[0].rstrip(".")
