"""Where a record goes as a file: data, a page for people, or a picture."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from ..report.charts import Chart


@runtime_checkable
class Drawn(Protocol):
    """A record that draws itself."""

    def figure(self) -> "Chart":
        """Its natural chart."""


Record = TypeVar("Record", bound=Drawn)


def save_record(
    record: Record,
    path: str | Path,
    file_format: str | None,
    *,
    formats: Sequence[str],
    data: Callable[[Record, Path, str], None],
    pages: Mapping[str, Callable[[Record], str]],
) -> None:
    """Write a record, whole or not at all.

    Args:
        record: What to write.
        path: Where to.
        file_format: One of the extensions, without its dot, for a path with another.
        formats: Extensions of data.
        data: Writes those; told the format, without its dot.
        pages: What makes pages for people, by extension.

    Raises:
        OutputError: If the format is unknown or the place not writable.
    """
    from ..report.documents import PICTURES
    from ..storage.atomic import write_whole
    from ..storage.files import known_format

    place = Path(path)
    known = list(dict.fromkeys((*formats, *pages, *PICTURES)))
    extension = known_format(place, file_format, known)
    if extension in pages:
        write_whole(place, pages[extension](record).encode("utf-8", "replace"))
    elif extension in PICTURES:
        from ..report.charts.files import picture_bytes

        write_whole(place, picture_bytes(record.figure(), extension))
    else:
        data(record, place, extension.removeprefix("."))
