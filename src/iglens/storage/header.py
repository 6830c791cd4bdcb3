"""What both complete forms say in JSON: everything besides the arrays."""

from dataclasses import asdict
from typing import Any

from ..errors import ArtifactError
from ..records import (
    KINDS,
    UNITS,
    Attribution,
    Flag,
    ModelInfo,
    Provenance,
    ReadoutInfo,
    Segment,
    Target,
)
from .fields import Fields
from .plain import plain

SCHEMA = "iglens.attribution/1"
"""Name and version of the form. Fields may be added within a version, never renamed."""


_USUAL = "total_variation"
"""What readouts were judged by before files said so."""


def header_to_json(attribution: Attribution, flags: tuple[Flag, ...]) -> dict[str, Any]:
    """The part of a result that is words and provenance.

    Args:
        attribution: The result.
        flags: The flags to write; the JSON form has more than the result.
    """
    provenance = attribution.provenance
    targets = [
        {**asdict(target), "space": target.unit(attribution.unit)}
        for target in attribution.targets
    ]
    header = {
        "schema": SCHEMA,
        "model": asdict(provenance.model),
        "prompt": provenance.prompt,
        "target": targets,
        "unit": attribution.unit,
        "baseline_kind": attribution.baseline_kind,
        "lens": attribution.lens,
        "estimator": attribution.estimator,
        "readout": asdict(attribution.readout),
        "segments": [asdict(segment) for segment in attribution.segments],
        "flags": [asdict(flag) for flag in flags],
        "warnings": attribution.warnings,
        "versions": provenance.versions,
        "created": provenance.created,
        "settings": provenance.settings,
    }
    written = plain(header)
    assert isinstance(written, dict)
    return written


def header_from_json(fields: Fields) -> dict[str, Any]:
    """Arguments of `Attribution` that `header_to_json` wrote.

    Raises:
        ArtifactError: If a field is missing or not of its kind.
    """
    check_schema(fields)
    unit = fields.text("unit")
    if unit not in UNITS:
        raise ArtifactError(f"its `unit` is {unit!r}, not one of {list(UNITS)}")
    return {
        "targets": tuple(_target(entry) for entry in fields.records("target")),
        "segments": tuple(_segment(entry) for entry in fields.records("segments")),
        "unit": unit,
        "baseline_kind": fields.text("baseline_kind"),
        "lens": fields.text("lens"),
        "estimator": fields.text("estimator"),
        "readout": _readout(fields.record("readout")),
        "flags": tuple(_flag(entry) for entry in fields.records("flags")),
        "warnings": fields.texts("warnings"),
        "provenance": _provenance(fields),
    }


def check_schema(fields: Fields) -> None:
    """Refuse what is not a result, or a result of another version."""
    if "schema" not in fields.values:
        raise ArtifactError("it has no `schema`, so it is not a result of iglens")
    found = fields.text("schema")
    if found != SCHEMA:
        raise ArtifactError(
            f"its `schema` is {found!r}, and this version of iglens reads {SCHEMA!r}"
        )


def _target(entry: Fields) -> Target:
    kind, space = entry.text("kind"), entry.text("space")
    for known in KINDS:
        if known == kind:
            found = Target(
                entry.integers("ids"),
                entry.text("text"),
                entry.integers("against"),
                entry.text("against_text"),
                space=space if known in ("entropy", "kl", "scalar") else None,
                kind=known,
            )
            if found.kind == kind:
                return found
    raise ArtifactError(f"its `target` of kind {kind!r} does not fit its tokens")


def _segment(entry: Fields) -> Segment:
    return Segment(
        layer=entry.integer("layer"),
        after=entry.integer_or_none("after"),
        part=entry.text("part"),
        label=entry.text("label"),
        module=entry.text_or_none("module"),
        block=entry.text_or_none("block") if "block" in entry.values else None,
    )


def _readout(entry: Fields) -> ReadoutInfo:
    return ReadoutInfo(
        kind=entry.text("kind"),
        dtype=entry.text("dtype"),
        postprocess=entry.text("postprocess"),
        tolerance=entry.number("tolerance"),
        power=entry.number("power"),
        measure=entry.text("measure") if "measure" in entry.values else _USUAL,
        pruned_below=entry.number("pruned_below")
        if "pruned_below" in entry.values
        else 0.0,
    )


def _flag(entry: Fields) -> Flag:
    return Flag(
        row=entry.integer("row"),
        point=entry.integer_or_none("point"),
        kind=entry.text("kind"),
        detail=entry.text("detail"),
    )


def _provenance(fields: Fields) -> Provenance:
    model = fields.record("model")
    versions = fields.record("versions")
    return Provenance(
        model=ModelInfo(
            id=model.text("id"),
            path=model.text_or_none("path"),
            revision=model.text_or_none("revision"),
            weights_sha256=model.text_or_none("weights_sha256"),
            dtype=model.text("dtype"),
            n_layers=model.integer("n_layers"),
            vocab_size=model.integer("vocab_size"),
            architecture=model.text("architecture"),
            note=model.text_or_none("note"),
        ),
        prompt=fields.text_or_none("prompt"),
        versions={name: versions.text(name) for name in versions.values},
        created=fields.text("created"),
        settings=dict(fields.record("settings").values),
    )
