"""A difference of two results as JSON, and as a table."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..records.difference import Difference
from .atomic import replacing
from .files import known_format
from .json_form import attribution_to_json
from .plain import nulled, plain
from .table_form import csv_of, parquet_of

SCHEMA = "iglens.difference/1"
"""Name and version of the form. Fields may be added within a version, never renamed."""

_NUMBERS = (
    "levels",
    "credits",
    "writes",
    "baseline",
    "final",
    "completeness",
    "noise_floor",
)


def difference_to_json(difference: Difference) -> dict[str, Any]:
    """The difference as JSON values, both results in full.

    NaN and infinity become null; the flags of `a` and `b` name the cells they are from.
    """
    written = plain(
        {
            **_header(difference),
            "layers": list(difference.layers),
            "labels": [segment.label for segment in difference.segments],
            **{name: nulled(getattr(difference, name)) for name in _NUMBERS},
            "beyond_noise": difference.beyond_noise.tolist(),
            "a": attribution_to_json(difference.a),
            "b": attribution_to_json(difference.b),
        }
    )
    return dict(written)


def _header(difference: Difference) -> dict[str, Any]:
    """The part that is words."""
    a = difference.a
    return {
        "schema": SCHEMA,
        "unit": a.unit,
        "baseline_kind": a.baseline_kind,
        "lens": a.lens,
        "estimator": a.estimator,
        "target": [
            {**asdict(target), "space": target.unit(a.unit)} for target in a.targets
        ],
        "segments": [asdict(segment) for segment in a.segments],
        "notes": difference.notes,
    }


def _json_bytes(difference: Difference) -> bytes:
    """The document as one line of ASCII."""
    document = difference_to_json(difference)
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    return text.encode("ascii") + b"\n"


def _csv_bytes(difference: Difference) -> bytes:
    """The tidy table as CSV."""
    return csv_of(difference.to_arrow())


def _parquet_bytes(difference: Difference) -> bytes:
    """The tidy table as Parquet, with the provenance of both results."""
    sides = {
        name: asdict(side.provenance)
        for name, side in (("a", difference.a), ("b", difference.b))
    }
    return parquet_of(difference.to_arrow(), plain(_header(difference) | sides))


_WRITERS: dict[str, Callable[[Difference], bytes]] = {
    ".json": _json_bytes,
    ".csv": _csv_bytes,
    ".parquet": _parquet_bytes,
}

DIFFERENCE_FORMATS = tuple(_WRITERS)
"""Every extension a difference can be written with."""


def save_difference(
    difference: Difference, path: Path, file_format: str | None = None
) -> None:
    """Write a difference, whole or not at all.

    Args:
        difference: What to write.
        path: Where to, with one of the extensions in `DIFFERENCE_FORMATS`.
        file_format: One of them, without its dot, for a path that has another.

    Raises:
        OutputError: If the format is unknown or the place not writable.
    """
    writer = _WRITERS[known_format(path, file_format, DIFFERENCE_FORMATS)]
    data = writer(difference)
    with replacing(path) as temporary:
        temporary.write_bytes(data)
