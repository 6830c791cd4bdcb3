"""Effects beside credits, as JSON, and as a table."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..records import Attribution
from ..records.effects import Effects
from .atomic import replacing
from .files import known_format
from .plain import nulled, plain
from .table_form import csv_of, parquet_of

SCHEMA = "iglens.effects/1"
"""Name and version of the form. Fields may be added within a version, never renamed."""


def effects_to_json(effects: Effects) -> dict[str, Any]:
    """The record as JSON values; NaN and infinity become null."""
    written = plain(
        {
            **_header(effects),
            **numbers_of(effects),
            "credits": nulled(effects.credits),
            "ledger": nulled(effects.ledger),
            "baseline": [float(v) for r in effects.results for v in r.baseline],
            "final": [float(v) for r in effects.results for v in r.final],
            "model_value": [float(v) for r in effects.results for v in r.model_value],
            "fidelity": [float(v) for r in effects.results for v in r.fidelity],
            "tolerance": effects.tolerance,
            "certified": effects.certified.tolist(),
        }
    )
    return dict(written)


def numbers_of(effects: Effects) -> dict[str, Any]:
    """What happened, and how it was taken."""
    return {
        "kind": effects.kind,
        "at": effects.at,
        "values": nulled(effects.effects),
        "intact": nulled(effects.intact),
        "removed": nulled(effects.removed),
        "closed": nulled(effects.closed),
        "apart": nulled(effects.apart),
        "runs": list(effects.runs),
    }


def _header(effects: Effects) -> dict[str, Any]:
    """The part that is words."""
    first, texts = effects.results[0], enumerate(effects.results)
    return {
        "schema": SCHEMA,
        "model": asdict(first.provenance.model),
        "texts": [_text(result) for result in effects.results],
        "text": [at for at, result in texts for _ in result.targets],
        "positions": list(effects.positions),
        "target": [
            asdict(target) | {"space": target.unit(effects.unit)}
            for target in effects.targets
        ],
        "unit": effects.unit,
        "layers": [segment.layer for segment in effects.segments],
        "labels": [segment.label for segment in effects.segments],
        "segments": [asdict(segment) for segment in effects.segments],
        "warnings": list(effects.warnings),
        "versions": first.provenance.versions,
        "created": first.provenance.created,
        "settings": first.provenance.settings,
    }


def _text(result: Attribution) -> dict[str, Any]:
    """One text."""
    tokens = zip(result.token_ids.tolist(), result.token_texts, strict=True)
    return {
        "prompt": result.provenance.prompt,
        "tokens": [
            {"position": at, "id": token, "text": text}
            for at, (token, text) in enumerate(tokens)
        ],
    }


def _json_bytes(effects: Effects) -> bytes:
    """The document as one line of ASCII."""
    text = json.dumps(effects_to_json(effects), allow_nan=False, separators=(",", ":"))
    return text.encode("ascii") + b"\n"


def _csv_bytes(effects: Effects) -> bytes:
    """The tidy table as CSV."""
    return csv_of(effects.to_arrow())


def _parquet_bytes(effects: Effects) -> bytes:
    """The tidy table as Parquet."""
    return parquet_of(effects.to_arrow(), plain(_header(effects)))


_WRITERS: dict[str, Callable[[Effects], bytes]] = {
    ".json": _json_bytes,
    ".csv": _csv_bytes,
    ".parquet": _parquet_bytes,
}

EFFECTS_FORMATS = tuple(_WRITERS)
"""Every extension effects can be written with as data."""


def save_effects(effects: Effects, path: Path, file_format: str | None = None) -> None:
    """Write effects, whole or not at all.

    Args:
        effects: What to write.
        path: Where to, with one of the extensions in `EFFECTS_FORMATS`.
        file_format: One of them, without its dot, for a path that has another.

    Raises:
        OutputError: If the format is unknown or the place not writable.
    """
    data = _WRITERS[known_format(path, file_format, EFFECTS_FORMATS)](effects)
    with replacing(path) as temporary:
        temporary.write_bytes(data)
