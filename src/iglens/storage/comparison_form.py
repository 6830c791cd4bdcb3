"""Methods side by side, as JSON and as a table."""

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..records.comparison import (
    Audited,
    Comparison,
    Contributions,
    Entry,
    Reading,
    Summary,
)
from .atomic import replacing
from .plain import nulled, plain

SCHEMA = "iglens.comparison/1"
"""Name and version of the form. Fields may be added within a version, never renamed."""

FORMATS = (".html", ".md", ".csv", ".json")
"""Extensions a comparison can be written with."""

COLUMNS = (
    "method", "title", "kind", "unit", "sum", "change", "error", "own_error",
    "monotone", "peak", "agreement", "agreement_without_last", "forwards", "backwards",
    "head", "seconds", "reason",
)  # fmt: skip
"""Columns of the table; sum, change and error are in probability."""


def comparison_to_json(found: Comparison) -> dict[str, Any]:
    """The record as JSON values; NaN and infinity become null."""
    provenance = found.provenance
    summaries = zip(found.entries, found.table, strict=True)
    written = plain(
        {
            "schema": SCHEMA,
            "model": asdict(provenance.model),
            "prompt": provenance.prompt,
            "tokens": list(found.token_texts),
            "position": found.position,
            "target": asdict(found.target),
            "baseline": found.baseline,
            "final": found.final,
            "change": found.change,
            "noise_floor": found.noise_floor,
            "fidelity": found.fidelity,
            "methods": [_method(found, *pair) for pair in summaries],
            "audit": None if found.audited is None else _audit(found.audited),
            "warnings": found.warnings,
            "versions": provenance.versions,
            "created": provenance.created,
            "settings": provenance.settings,
        }
    )
    assert isinstance(written, dict)
    return written


def _method(found: Comparison, entry: Entry, summary: Summary) -> dict[str, Any]:
    """One method: its line of the table, and its numbers."""
    said = entry.found
    return {
        **_line(summary),
        "conversion": summary.conversion,
        "notes": [] if said is None else list(said.notes),
        "layers": [] if said is None else list(said.layers),
        "parts": [] if said is None else list(said.parts),
        "values": [] if said is None else nulled(said.values),
        "in_probability": [] if said is None else _converted(found, said),
    }


def _audit(audited: Audited) -> dict[str, Any]:
    """What happens without each layer, or why that is not known."""
    cost, effects = audited.cost, audited.effects
    none: list[float] = []
    return {
        "reason": audited.reason,
        "layers": none if effects is None else [s.layer for s in effects.segments],
        "effects": none if effects is None else nulled(effects.effects[0]),
        "intact": None if effects is None else float(effects.intact[0]),
        "removed": None if effects is None else float(effects.removed[0]),
        **asdict(cost),
    }


def _converted(found: Comparison, said: Contributions | Reading) -> list[float | None]:
    """A method's numbers in probability."""
    return nulled(found.converted(said))


def _line(summary: Summary) -> dict[str, Any]:
    """What the table shows of a method, by column."""
    cost = summary.cost
    values = (
        summary.name, summary.title, summary.kind, summary.unit, summary.total,
        summary.change, summary.error, summary.own_error, summary.monotone,
        summary.peak, summary.agreement, summary.agreement_without_last, cost.forwards,
        cost.backwards, cost.head, cost.seconds, summary.reason,
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def json_text(found: Comparison) -> str:
    """All of it."""
    document = comparison_to_json(found)
    return json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n"


def csv_text(found: Comparison) -> str:
    """The table, one line per method; what is not known is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for summary in found.table:
        writer.writerow(plain(_line(summary)))
    return out.getvalue()


def save_comparison(found: Comparison, path: Path, file_format: str) -> None:
    """Write the table or all of it, whole or not at all.

    Args:
        found: What to write.
        path: Where to.
        file_format: "csv" or "json".

    Raises:
        OutputError: If the place is not writable.
    """
    text = {"csv": csv_text, "json": json_text}[file_format](found)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace", newline="")
