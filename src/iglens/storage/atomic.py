"""Files that appear whole or not at all."""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

from ..errors import OutputError


@contextmanager
def replacing(path: Path, *, prefix: str = ".iglens-") -> Iterator[Path]:
    """A new file to write to, which takes the place of `path` in one step at the end.

    If anything goes wrong inside, Ctrl-C too, it is gone, and what stood there before
    stays. A process that is killed leaves it: a hidden file of that prefix.

    Raises:
        OutputError: If the place is not writable.
    """
    try:
        place = _place(path)
        temporary = _temporary(place, prefix)
        try:
            temporary.open("xb").close()
            yield temporary
            _finish(temporary, place)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except (OSError, RuntimeError, ValueError) as error:
        raise OutputError(f"Cannot write {path}: {reason(error)}.") from error


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        OutputError: If the place is not writable.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def _finish(temporary: Path, place: Path) -> None:
    """Force it to the disk, with the rights of what it replaces, and rename it."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    if place.exists():
        shutil.copymode(place, temporary)
    temporary.replace(place)


def check_replaceable(path: Path) -> None:
    """Refuse a place that could not be written to, before the long run.

    Writes and removes an empty file next to it; the file itself is not touched.

    Raises:
        OutputError: If the folder is missing or not writable, or something other than
            a writable file stands there.
    """
    try:
        temporary = _temporary(_place(path))
        with temporary.open("xb"):
            pass
        temporary.unlink()
    except (OSError, RuntimeError, ValueError) as error:
        raise OutputError(f"Cannot write {path}: {reason(error)}.") from error


def _place(path: Path) -> Path:
    """The file to write, behind any links, if it may be (over)written.

    Raises:
        OSError: If it may not.
    """
    place = path.resolve()
    try:
        mode = place.stat().st_mode
    except FileNotFoundError:
        if not place.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {place.parent}") from None
        return place
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise FileExistsError(f"it is {what}")
    if not os.access(place, os.W_OK):
        raise PermissionError("the file there is write-protected")
    return place


def _temporary(place: Path, prefix: str = ".iglens-") -> Path:
    """A new name in the same folder, so that the last step is one rename."""
    return place.with_name(f"{prefix}{token_hex(8)}.tmp")


def reason(error: Exception) -> str:
    """What the system says, without the number and the path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)
