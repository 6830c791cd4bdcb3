"""The summary of a run as JSON, and as a table."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..records.estimates import (
    QUANTILES,
    Band,
    Contrast,
    Estimate,
    Group,
    Histogram,
    Spread,
)
from ..records.summary import NullBeside, Summary
from .atomic import replacing
from .files import known_format
from .plain import nulled, plain
from .table_form import csv_of, parquet_of

SCHEMA = "iglens.summary/1"
"""Name and version of the form. Fields may be added within a version, never renamed."""


def summary_to_json(summary: Summary) -> dict[str, Any]:
    """The summary as JSON values; NaN becomes null. Nothing depends on when it is."""
    written = plain(
        {
            **_header(summary),
            "whole": [group_to_json(one) for one in summary.whole],
            "slices": [
                {
                    "column": one.column,
                    "groups": [group_to_json(group) for group in one.groups],
                    "contrasts": [contrast_to_json(each) for each in one.contrasts],
                }
                for one in summary.slices
            ],
            "null": None if summary.null is None else _null(summary.null),
        }
    )
    return dict(written)


def _header(summary: Summary) -> dict[str, Any]:
    """The part that is words and counts."""
    return {
        "schema": SCHEMA,
        "run": summary.run,
        "complete": summary.complete,
        "n_items": summary.n_items,
        "n_total": summary.n_total,
        "n_failures": summary.n_failures,
        "failures": summary.failures,
        "level": summary.level,
        "n_replicates": summary.n_replicates,
        "seed": summary.seed,
        "layers": list(summary.layers),
        "labels": [segment.label for segment in summary.segments],
        "segments": [asdict(segment) for segment in summary.segments],
        "notes": list(summary.notes),
    }


def group_to_json(group: Group) -> dict[str, Any]:
    """Statistics of some rows."""
    return {
        "value": group.value,
        "kind": group.kind,
        "unit": group.unit,
        "n_prompts": group.n_prompts,
        "n_rows": group.n_rows,
        "n_left_out": group.n_left_out,
        "credits": band_to_json(group.credits),
        "levels": band_to_json(group.levels),
        "final": estimate_to_json(group.final),
        "depths": {name: histogram(one) for name, one in group.depths.items()},
        "churn": _spread(group.churn),
        "overshoot": _spread(group.overshoot),
        "shares": [
            {
                "part": share.part,
                "net": estimate_to_json(share.net),
                "absolute": estimate_to_json(share.absolute),
            }
            for share in group.shares
        ],
        "correct": estimate_to_json(group.correct),
        "n_judged": group.n_judged,
        "fidelity": group.fidelity,
        "flags": group.flags,
    }


def contrast_to_json(contrast: Contrast) -> dict[str, Any]:
    """A difference of two groups."""
    return {
        "a": contrast.a,
        "b": contrast.b,
        "unit": contrast.unit,
        "credits": band_to_json(contrast.credits),
        "final": estimate_to_json(contrast.final),
        "depths": {n: estimate_to_json(one) for n, one in contrast.depths.items()},
        "correct": estimate_to_json(contrast.correct),
    }


def _null(null: NullBeside) -> dict[str, Any]:
    """A null beside the run."""
    clears = {one.unit: null.clears(one.unit) for one in null.contrasts}
    return {
        "of": null.of,
        "groups": [group_to_json(group) for group in null.groups],
        "contrasts": [contrast_to_json(one) for one in null.contrasts],
        "clears": {u: None if c is None else c.tolist() for u, c in clears.items()},
    }


def estimate_to_json(estimate: Estimate) -> dict[str, float]:
    """A number and its interval."""
    return asdict(estimate)


def band_to_json(band: Band) -> dict[str, list[float | None]]:
    """A curve and its bounds."""
    names = ("mean", "low", "high", "band_low", "band_high")
    return {name: nulled(getattr(band, name)) for name in names}


def histogram(found: Histogram) -> dict[str, Any]:
    """Counts by layer."""
    return {
        "layers": list(found.layers),
        "counts": found.counts.tolist(),
        "missing": found.missing,
        "median": found.median,
        "mean": estimate_to_json(found.mean),
    }


def _spread(spread: Spread) -> dict[str, Any]:
    """How a number is spread."""
    return {
        "n": spread.n,
        "missing": spread.missing,
        "mean": estimate_to_json(spread.mean),
        "quantiles": [
            {"share": share, "value": value}
            for share, value in zip(QUANTILES, spread.quantiles, strict=True)
        ],
        "resolution": spread.resolution,
    }


def _json_bytes(summary: Summary) -> bytes:
    """The document as one line of ASCII."""
    text = json.dumps(summary_to_json(summary), allow_nan=False, separators=(",", ":"))
    return text.encode("ascii") + b"\n"


def _csv_bytes(summary: Summary) -> bytes:
    """The tidy table as CSV."""
    return csv_of(summary.to_arrow())


def _parquet_bytes(summary: Summary) -> bytes:
    """The tidy table as Parquet."""
    return parquet_of(summary.to_arrow(), plain(_header(summary)))


_WRITERS: dict[str, Callable[[Summary], bytes]] = {
    ".json": _json_bytes,
    ".csv": _csv_bytes,
    ".parquet": _parquet_bytes,
}

FORMATS = tuple(_WRITERS)
"""Every extension of data."""


def save_summary(summary: Summary, path: Path, file_format: str | None = None) -> None:
    """Write a summary, whole or not at all.

    Args:
        summary: What to write.
        path: Where to, with one of the extensions in `FORMATS`.
        file_format: One of them, without its dot, for a path that has another.

    Raises:
        OutputError: If the format is unknown or the place not writable.
    """
    data = _WRITERS[known_format(path, file_format, FORMATS)](summary)
    with replacing(path) as temporary:
        temporary.write_bytes(data)
