"""The exact form: one safetensors file, every bit of every array, no pickle."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..errors import ArgumentError, ArtifactError
from ..records import Attribution
from .components_form import (
    components_from_tensors,
    components_tensors,
    components_words,
)
from .fields import Fields
from .header import check_schema, header_from_json, header_to_json
from .shapes import ARRAYS, assembled

KEY = "iglens"
"""Where the file's own metadata holds ours, as JSON."""

_TOLERANCE, _POWER = "readout.tolerance", "readout.power"
_TENSORS = {*ARRAYS, _TOLERANCE, _POWER}
_LATER = "pruned"


def safetensors_bytes(attribution: Attribution) -> bytes:
    """The result as a safetensors file.

    Arrays are tensors named after their fields. So are the two lone numbers, which
    may be infinite and have no place in JSON then.
    """
    metadata = header_to_json(attribution, attribution.flags) | {
        "token_texts": list(attribution.token_texts),
        "vocabulary": {str(i): text for i, text in attribution.vocabulary.items()},
        "components": components_words(attribution.components),
    }
    tensors = {name: getattr(attribution, name) for name in ARRAYS} | {
        _TOLERANCE: np.array(attribution.readout.tolerance),
        _POWER: np.array(attribution.readout.power),
    }
    tensors |= components_tensors(attribution.components)
    # the writer takes memory as it lies, whatever the strides say
    packed = {name: np.array(value, order="C") for name, value in tensors.items()}
    return save(packed, {KEY: json.dumps(metadata, allow_nan=False)})


def from_safetensors_bytes(data: bytes) -> Attribution:
    """The result in a `.safetensors` file.

    Raises:
        ArtifactError: If the file is damaged, foreign, or its parts disagree.
    """
    try:
        tensors = load(data)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"it is not whole or not safetensors ({error})") from error
    fields = Fields(_metadata(data))
    check_schema(fields)
    if _LATER not in tensors and "top1" in tensors:  # before there was pruning
        tensors[_LATER] = np.zeros_like(tensors["top1"])
    if missing := sorted(_TENSORS - set(tensors)):
        raise ArtifactError(f"the array `{missing[0]}` is missing")
    try:
        return assembled(_words(fields, tensors) | {n: tensors[n] for n in ARRAYS})
    except (ArgumentError, OverflowError) as error:
        raise ArtifactError(str(error).rstrip(".")) from error


def _metadata(data: bytes) -> dict[str, Any]:
    """Our JSON out of the header of a file that is known to be safetensors."""
    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    if KEY not in metadata:
        raise ArtifactError("it is a safetensors file, but not a result of iglens")
    try:
        ours = json.loads(metadata[KEY])
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"its metadata is not JSON ({error})") from error
    if not isinstance(ours, dict):
        raise ArtifactError("its metadata is not an object")
    return ours


def _words(fields: Fields, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """Arguments of `Attribution` that are no arrays."""
    header = header_from_json(fields)
    lone = {name: _lone(name, tensors[name]) for name in _TENSORS - set(ARRAYS)}
    vocabulary = fields.record("vocabulary")
    sizes = {
        "rows": len(header["targets"]),
        "segments": len(header["segments"]),
        "text": len(fields.entries("token_texts")),
    }
    return header | {
        "components": components_from_tensors(fields, tensors, sizes),
        "readout": replace(
            header["readout"], tolerance=lone[_TOLERANCE], power=lone[_POWER]
        ),
        "token_texts": fields.texts("token_texts"),
        "vocabulary": {_id(key): vocabulary.text(key) for key in vocabulary.values},
    }


def _lone(name: str, array: np.ndarray) -> float:
    if array.shape != () or array.dtype.kind != "f":
        raise ArtifactError(f"`{name}` is not one number")
    return float(array)


def _id(key: str) -> int:
    if not key.isdecimal():
        raise ArtifactError(f"`vocabulary` names {key!r}, which is no token id")
    return int(key)
