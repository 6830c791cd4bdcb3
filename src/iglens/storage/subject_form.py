"""What every result besides the attribution says about itself in JSON."""

from dataclasses import asdict
from typing import Any

from ..records.subject import Subject
from .plain import nulled, plain


def subject_to_json(subject: Subject, schema: str) -> dict[str, Any]:
    """Names, rows, segments and provenance, as in the form of an attribution.

    Args:
        subject: What the result is about.
        schema: Name and version of its form.
    """
    provenance = subject.provenance
    tokens = enumerate(
        zip(subject.token_ids.tolist(), subject.token_texts, strict=True)
    )
    written = plain(
        {
            "schema": schema,
            "model": asdict(provenance.model),
            "prompt": provenance.prompt,
            "tokens": [
                {"position": position, "id": token, "text": text}
                for position, (token, text) in tokens
            ],
            "positions": subject.positions.tolist(),
            "target": [asdict(target) for target in subject.targets],
            "baseline_kind": subject.baseline_kind,
            "lens": subject.lens,
            "readout": asdict(subject.readout),
            "layers": subject.layers,
            "labels": [segment.label for segment in subject.segments],
            "segments": [asdict(segment) for segment in subject.segments],
            "fidelity": nulled(subject.fidelity),
            "flags": [asdict(flag) for flag in subject.flags],
            "warnings": subject.warnings,
            "versions": provenance.versions,
            "created": provenance.created,
            "settings": provenance.settings,
        }
    )
    assert isinstance(written, dict)
    return written
