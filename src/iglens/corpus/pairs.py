"""Rows of two runs that belong together, found without holding the runs.

Where both runs cut the same input alike, partners lie in shards of the same number, and
one shard of each is held. Otherwise rows of both are first sorted into files by a hash
of what they are paired by (a Grace hash join), and one file of each is held.
"""

import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OutputError
from ..records.run_difference import PairedBy
from ..storage.atomic import reason
from .store import Store

if TYPE_CHECKING:
    import pyarrow

ROWS_HELD = 20_000
"""Rows of each run that are held at once, about."""

MOST_FILES = 128
"""Files that rows of one run are sorted into, at most."""

KEYS: dict[PairedBy, list[str]] = {"content": ["content"], "id": ["id", "offset"]}
"""Columns that rows are paired by. The k-th of equal ones goes with the k-th."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Some rows of one run, and as many of another, one to one.

    Attributes:
        a: The rows of one.
        b: Their partners.
        n_a: Rows of the one among which they were looked for.
        n_b: Rows of the other.
    """

    a: "pyarrow.Table"
    b: "pyarrow.Table"
    n_a: int
    n_b: int


def by_shards(
    a: Store, b: Store, columns: list[str], paired_by: PairedBy
) -> Iterator[Pairs]:
    """The pairs of two runs of the same rows of the same input.

    Raises:
        ArtifactError: If a shard is damaged.
    """
    right = _tables(b, columns)
    number, other = next(right, (None, None))
    for at, table in _tables(a, columns):
        while number is not None and number < at:
            yield joined(None, other, paired_by)
            number, other = next(right, (None, None))
        if number == at:
            yield joined(table, other, paired_by)
            number, other = next(right, (None, None))
        else:
            yield joined(table, None, paired_by)
    while number is not None:
        yield joined(None, other, paired_by)
        number, other = next(right, (None, None))


def by_partitions(
    a: Store, b: Store, columns: list[str], paired_by: PairedBy
) -> Iterator[Pairs]:
    """The pairs of any two runs.

    Raises:
        ArtifactError: If a shard is damaged.
        OutputError: If there is no room to sort rows in.
    """
    most = max(sum(s.n_rows for s in store.shards()) for store in (a, b))
    n_files = max(1, min(MOST_FILES, -(-most // ROWS_HELD)))
    with _folder() as folder:
        places = [folder / side for side in "ab"]
        with _no_room(folder):
            for store, place in zip((a, b), places, strict=True):
                _sort(store, place, columns, paired_by, n_files)
        for at in range(n_files):
            one, other = (_read(place, at) for place in places)
            if one is not None or other is not None:
                yield joined(one, other, paired_by)


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder to sort rows in, gone afterwards."""
    with _no_room(None):
        made = tempfile.TemporaryDirectory(prefix="iglens-")
    with made as folder:
        yield Path(folder)


@contextmanager
def _no_room(folder: Path | None) -> Iterator[None]:
    """What goes wrong with it, in a sentence."""
    try:
        yield
    except OSError as error:
        where = folder or tempfile.tempdir or "the folder for temporary files"
        raise OutputError(
            f"Cannot sort the rows of two runs in {where}: {reason(error)}. Set TMPDIR "
            "to a folder with as much room as the runs take."
        ) from error


def joined(
    a: "pyarrow.Table | None", b: "pyarrow.Table | None", paired_by: PairedBy
) -> Pairs:
    """The pairs among some rows of both; None for no rows."""
    import pyarrow

    if a is None or b is None:
        one = a if a is not None else b
        assert one is not None  # one of them is there
        none = one.slice(0, 0)
        return Pairs(none, none, *(0 if t is None else t.num_rows for t in (a, b)))
    known = {key: at for at, key in enumerate(_keys(b, paired_by))}
    found = [
        (at, known[key]) for at, key in enumerate(_keys(a, paired_by)) if key in known
    ]
    left, right = (
        pyarrow.array([pair[i] for pair in found], pyarrow.int64()) for i in (0, 1)
    )
    return Pairs(a.take(left), b.take(right), a.num_rows, b.num_rows)


def _keys(table: "pyarrow.Table", paired_by: PairedBy) -> Iterator[tuple[object, ...]]:
    """What each row is paired by, with how many equal ones there were before."""
    seen: Counter[tuple[object, ...]] = Counter()
    columns = [table.column(name).to_pylist() for name in KEYS[paired_by]]
    for key in zip(*columns, strict=True):
        yield *key, seen[key]
        seen[key] += 1


def _tables(store: Store, columns: list[str]) -> Iterator[tuple[int, "pyarrow.Table"]]:
    """Number and rows of every shard that has some."""
    import pyarrow

    batches = store.batches(columns, ROWS_HELD)
    for shard in store.shards():
        held, n_rows = [], 0
        while n_rows < shard.n_rows:
            held.append(next(batches))
            n_rows += len(held[-1])
        if held:
            yield shard.number, pyarrow.Table.from_batches(held)


def _sort(
    store: Store, place: Path, columns: list[str], paired_by: PairedBy, n_files: int
) -> None:
    """Write the rows of a run into files, by a hash of what they are paired by."""
    import pyarrow
    from pyarrow import ipc

    place.mkdir()
    with ExitStack() as stack:
        writers: dict[int, ipc.RecordBatchFileWriter] = {}
        for batch in store.batches(columns, ROWS_HELD):
            table = pyarrow.Table.from_batches([batch])
            files = [_hash(key) % n_files for key in _keys_alone(table, paired_by)]
            for at in sorted(set(files)):
                if at not in writers:
                    sink = stack.enter_context(
                        pyarrow.OSFile(str(_file(place, at)), "wb")
                    )
                    writers[at] = stack.enter_context(ipc.new_file(sink, table.schema))
                own = [row for row, file in enumerate(files) if file == at]
                writers[at].write_table(table.take(own))


def _keys_alone(
    table: "pyarrow.Table", paired_by: PairedBy
) -> Iterator[tuple[object, ...]]:
    """What each row is paired by."""
    columns = [table.column(name).to_pylist() for name in KEYS[paired_by]]
    return zip(*columns, strict=True)


def _hash(key: tuple[object, ...]) -> int:
    """A number that is the same in every process."""
    return zlib.crc32(repr(key).encode("utf-8", "replace"))


def _read(place: Path, at: int) -> "pyarrow.Table | None":
    """The rows in a file; None if there are none."""
    import pyarrow
    from pyarrow import ipc

    path = _file(place, at)
    if not path.exists():
        return None
    with pyarrow.OSFile(str(path), "rb") as source:
        return ipc.open_file(source).read_all()


def _file(place: Path, at: int) -> Path:
    """Where rows of one hash are."""
    return place / f"{at:03d}.arrow"
