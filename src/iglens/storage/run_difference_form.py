"""A difference of two runs as JSON, and as a table."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..records.run_difference import PairGroup, RunDifference, Side
from .atomic import replacing
from .files import known_format
from .plain import plain
from .summary_form import band_to_json, estimate_to_json
from .table_form import csv_of, parquet_of

SCHEMA = "iglens.run_difference/1"
"""Name and version of the form. Fields may be added within a version, never renamed."""


def run_difference_to_json(found: RunDifference) -> dict[str, Any]:
    """The difference as JSON values; NaN becomes null."""
    groups = [_group(group) for group in found.groups]
    return dict(plain({**_header(found), "groups": groups}))


def _header(found: RunDifference) -> dict[str, Any]:
    """The part that is words and counts."""
    return {
        "schema": SCHEMA,
        "a": _side(found.a),
        "b": _side(found.b),
        "paired_by": found.paired_by,
        "joined": found.joined,
        "by": found.by,
        "labels": list(found.labels),
        "ends": list(found.ends),
        "level": found.level,
        "n_replicates": found.n_replicates,
        "seed": found.seed,
        "notes": list(found.notes),
    }


def _side(side: Side) -> dict[str, Any]:
    """One of the two runs."""
    return {"run": side.run, "n_rows": side.n_rows, "n_unpaired": side.n_unpaired}


def _group(group: PairGroup) -> dict[str, Any]:
    """Statistics of the pairs of one unit."""
    bands = {name: band_to_json(getattr(group, name)) for name in ("a", "b", "credits")}
    numbers = ("final_a", "final_b", "final", "correct")
    return {
        "unit": group.unit,
        "n_prompts": group.n_prompts,
        "n_pairs": group.n_pairs,
        "n_left_out": group.n_left_out,
        **bands,
        **{name: estimate_to_json(getattr(group, name)) for name in numbers},
        "depths": {n: estimate_to_json(one) for n, one in group.depths.items()},
        "n_depths": group.n_depths,
        "n_judged": group.n_judged,
    }


def _json_bytes(found: RunDifference) -> bytes:
    """The document as one line of ASCII."""
    document = run_difference_to_json(found)
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    return text.encode("ascii") + b"\n"


def _csv_bytes(found: RunDifference) -> bytes:
    """The table as CSV."""
    return csv_of(found.to_arrow())


def _parquet_bytes(found: RunDifference) -> bytes:
    """The table as Parquet."""
    return parquet_of(found.to_arrow(), plain(_header(found)))


_WRITERS: dict[str, Callable[[RunDifference], bytes]] = {
    ".json": _json_bytes,
    ".csv": _csv_bytes,
    ".parquet": _parquet_bytes,
}

FORMATS = tuple(_WRITERS)
"""Every extension of data."""


def save_run_difference(
    found: RunDifference, path: Path, file_format: str | None = None
) -> None:
    """Write a difference, whole or not at all.

    Args:
        found: What to write.
        path: Where to, with one of the extensions in `FORMATS`.
        file_format: One of them, without its dot, for a path that has another.

    Raises:
        OutputError: If the format is unknown or the place not writable.
    """
    data = _WRITERS[known_format(path, file_format, FORMATS)](found)
    with replacing(path) as temporary:
        temporary.write_bytes(data)
