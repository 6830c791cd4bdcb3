"""An audit as JSON, and as a table."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..records import Attribution
from ..records.audit import Audit, Correlation, Curve, Identities
from .atomic import replacing
from .effects_form import numbers_of
from .files import known_format
from .plain import nulled, plain
from .table_form import csv_of, parquet_of

SCHEMA = "iglens.audit/1"
"""Name and version of the form. Fields may be added within a version, never renamed."""


def audit_to_json(audit: Audit) -> dict[str, Any]:
    """The audit as JSON values; NaN and infinity become null."""
    written = plain(
        {
            **_header(audit),
            "credits": nulled(audit.credits),
            "update_sizes": nulled(audit.sizes),
            "effects": numbers_of(audit.effects),
            "gates": None if audit.gates is None else numbers_of(audit.gates),
            "ledger": None if audit.ledger is None else nulled(audit.ledger),
            "identities": _identities(audit.identities),
            "correlations": [_correlation(one) for one in audit.correlations],
            "curves": [_curve(one) for one in audit.curves],
            "invisible": [asdict(one) for one in audit.invisible],
        }
    )
    return dict(written)


def _header(audit: Audit) -> dict[str, Any]:
    """The part that is words."""
    first = audit.results[0].provenance
    return {
        "schema": SCHEMA,
        "model": asdict(first.model),
        "unit": audit.unit,
        "seed": audit.seed,
        "texts": [_text(result) for result in audit.results],
        "layers": [segment.layer for segment in audit.segments],
        "labels": [segment.label for segment in audit.segments],
        "segments": [asdict(segment) for segment in audit.segments],
        "warnings": list(audit.warnings),
        "versions": first.versions,
        "created": first.created,
    }


def _text(result: Attribution) -> dict[str, Any]:
    """One text, and what is explained in it."""
    return {
        "prompt": result.provenance.prompt,
        "token_ids": result.token_ids.tolist(),
        "position": int(result.positions[0]),
        "target": asdict(result.targets[0]),
        "baseline": float(result.baseline[0]),
        "final": float(result.final[0]),
        "model_value": float(result.model_value[0]),
        "fidelity": float(result.fidelity[0]),
    }


def _correlation(one: Correlation) -> dict[str, Any]:
    """One method's agreement."""
    return {
        "method": one.method,
        "with_last": one.with_last,
        "per_text": nulled(one.per_text),
        "mean": one.mean,
        "low": one.low,
        "high": one.high,
        "null": one.null,
        "random": one.random,
        "reason": one.reason,
    }


def _identities(found: Identities) -> dict[str, Any]:
    """What agrees by construction, and how well it does."""
    return {
        "layers": list(found.layers),
        "readout": nulled(found.readout),
        "last": nulled(found.last),
        "noise_floor": nulled(found.noise_floor),
        "beyond": found.beyond.tolist(),
    }


def _curve(one: Curve) -> dict[str, Any]:
    """One curve."""
    return {
        "kind": one.kind,
        "order": one.order,
        "levels": nulled(one.levels),
        "area": one.area,
    }


def _json_bytes(audit: Audit) -> bytes:
    """The document as one line of ASCII."""
    text = json.dumps(audit_to_json(audit), allow_nan=False, separators=(",", ":"))
    return text.encode("ascii") + b"\n"


def _csv_bytes(audit: Audit) -> bytes:
    """The tidy table as CSV."""
    return csv_of(audit.to_arrow())


def _parquet_bytes(audit: Audit) -> bytes:
    """The tidy table as Parquet."""
    return parquet_of(audit.to_arrow(), plain(_header(audit)))


_WRITERS: dict[str, Callable[[Audit], bytes]] = {
    ".json": _json_bytes,
    ".csv": _csv_bytes,
    ".parquet": _parquet_bytes,
}

AUDIT_FORMATS = tuple(_WRITERS)
"""Every extension an audit can be written with."""


def save_audit(audit: Audit, path: Path, file_format: str | None = None) -> None:
    """Write an audit, whole or not at all.

    Args:
        audit: What to write.
        path: Where to, with one of the extensions in `AUDIT_FORMATS`.
        file_format: One of them, without its dot, for a path that has another.

    Raises:
        OutputError: If the format is unknown or the place not writable.
    """
    data = _WRITERS[known_format(path, file_format, AUDIT_FORMATS)](audit)
    with replacing(path) as temporary:
        temporary.write_bytes(data)
