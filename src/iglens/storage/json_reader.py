"""The published JSON form, read back."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import ArgumentError, ArtifactError
from ..records import Attribution
from .components_form import components_from_json
from .fields import Fields
from .header import check_schema, header_from_json
from .json_form import STABLE
from .shapes import assembled


def attribution_from_json(document: Mapping[str, Any]) -> Attribution:
    """The result that `attribution_to_json` wrote, with NaN for null.

    Fields of no known name are left alone: they belong to later versions. What is
    derived (`baseline`, `depths`, …) must be there but is computed anew.

    Args:
        document: The JSON object.

    Raises:
        ArtifactError: If the document is of another schema or version, a field is
            missing or of another kind, or shapes disagree.
    """
    fields = Fields(document)
    check_schema(fields)
    if missing := [name for name in STABLE if name not in document]:
        raise ArtifactError(f"`{missing[0]}` is missing")
    try:
        return assembled(header_from_json(fields) | _arrays(fields))
    except (ArgumentError, OverflowError) as error:
        raise ArtifactError(str(error).rstrip(".")) from error


def from_json_bytes(data: bytes) -> Attribution:
    """The result in a `.json` file.

    Raises:
        ArtifactError: If it is not strict JSON, or not a result.
    """
    try:
        document = json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"it is not whole or not JSON ({error})") from error
    if not isinstance(document, dict):
        raise ArtifactError("it holds JSON, but not an object")
    return attribution_from_json(document)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON value")


def _arrays(fields: Fields) -> dict[str, Any]:
    """Arguments of `Attribution` that JSON holds as nested lists."""
    n_rows = len(fields.entries("target"))
    rows, points = (n_rows,), (n_rows, len(fields.entries("segments")) + 1)
    segments = (n_rows, points[1] - 1)
    tokens = fields.records("tokens")
    return {
        "token_ids": np.array([entry.integer("id") for entry in tokens], np.int64),
        "token_texts": tuple(entry.text("text") for entry in tokens),
        "positions": fields.counts("positions", rows),
        "levels": fields.floats("levels", points),
        "credits": fields.floats("credits", segments),
        "writes": fields.floats("writes", segments),
        "noise_floor": fields.floats("noise_floor", rows),
        "top1": fields.booleans("top1", points),
        "pruned": fields.booleans("pruned", points)
        if "pruned" in fields.values
        else np.zeros(points, bool),  # before there was pruning
        "model_value": fields.floats("model_value", rows),
        "fidelity": fields.floats("fidelity", rows),
        "log_fidelity": fields.floats("log_fidelity", rows),
        "rank": fields.counts("rank", points),
        "lens_kl": fields.floats("lens_kl", points),
        **_top_tokens(fields, points),
        "components": components_from_json(fields, *segments, len(tokens)),
    }


def _top_tokens(fields: Fields, points: tuple[int, int]) -> dict[str, Any]:
    """`top_ids`, `top_probabilities` and `vocabulary`."""
    rows = fields.entries("top_tokens")
    cells = [cell for row in rows if isinstance(row, list) for cell in row]
    tops = {len(cell) if isinstance(cell, list) else -1 for cell in cells}
    if -1 in tops or len(tops - {0}) > 1:
        raise ArtifactError("`top_tokens` needs as many tokens at one point as another")
    width = max(tops, default=0)
    shape = (*points, width)
    none = [{"id": -1, "text": "", "probability": None}] * width
    flat = {"top_tokens": [entry for cell in cells for entry in cell or none]}
    entries = Fields(flat).records("top_tokens")
    if len(rows) != points[0] or len(entries) != np.prod(shape):
        raise ArtifactError(
            f"`top_tokens` has not {points[0]} rows of {points[1]} points, as `levels`"
        )
    ids = [entry.integer("id") for entry in entries]
    return {
        "top_ids": np.array(ids, np.int64).reshape(shape),
        "top_probabilities": np.array(
            [entry.number("probability") for entry in entries], np.float64
        ).reshape(shape),
        "vocabulary": {
            token: entry.text("text")
            for token, entry in zip(ids, entries, strict=True)
            if token >= 0
        },
    }
