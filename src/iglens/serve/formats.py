"""A result in every format that `-o` writes, made by the same writers."""

import threading

from ..errors import ArgumentError
from ..records import Attribution
from ..report.documents import DOCUMENTS, writers
from ..storage import FORMATS, WRITERS

MEDIA = {
    ".json": "application/json",
    ".safetensors": "application/octet-stream",
    ".csv": "text/csv; charset=utf-8",
    ".parquet": "application/vnd.apache.parquet",
    ".html": "text/html; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".pdf": "application/pdf",
}
"""What each format is called on the wire."""

_ONE_AT_A_TIME = threading.Lock()


def all_formats() -> dict[str, str]:
    """Every format by its extension, and what it is for."""
    return {**DOCUMENTS, **FORMATS}


def result_bytes(
    result: Attribution, extension: str, kind: str | None, row: int, theme: str
) -> bytes:
    """A result in a format; one is made at a time, since pictures take memory.

    Args:
        result: The result.
        extension: Of the format, with its dot.
        kind: Name of the chart in a picture; None for the natural one.
        row: The row it is of, where it is of one.
        theme: "light" or "dark", for pictures.

    Raises:
        ArgumentError: If there is no such format, chart, row or theme.
    """
    made = {**WRITERS, **writers(kind, row, theme)}
    if extension not in made:
        known = ", ".join(name[1:] for name in made)
        raise ArgumentError(f"The format is {extension[1:]!r}; known are {known}.")
    with _ONE_AT_A_TIME:
        return made[extension](result)
