"""What is inside segments, in both complete forms."""

from typing import Any

import numpy as np

from ..errors import ArtifactError
from ..records.components import Components
from .fields import Fields
from .plain import nulled

ARRAYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "segments": ("i", ("parts",)),
    "indices": ("i", ("parts",)),
    "sources": ("i", ("parts",)),
    "credits": ("f", ("rows", "parts")),
    "others": ("f", ("rows", "segments")),
    "n_parts": ("i", ("segments",)),
    "residual": ("f", ("rows", "segments")),
    "disagreement": ("f", ("rows", "segments")),
    "closed": ("f", ("rows", "segments")),
}
"""NumPy kind and axes of every array field of `Components` but `tokens`."""

PREFIX = "components."
"""Before the names of tensors in a safetensors file."""


def components_to_json(components: Components | None) -> dict[str, Any] | None:
    """The published form; null for a number that a part does not have."""
    if components is None:
        return None
    tokens = components.tokens
    return {
        "by": components.by,
        "segment": components.segments.tolist(),
        "kind": list(components.kinds),
        "index": _or_none(components.indices),
        "source": _or_none(components.sources),
        "credits": nulled(components.credits),
        "others": nulled(components.others),
        "n_parts": components.n_parts.tolist(),
        "certificate": {
            "residual": nulled(components.residual),
            "disagreement": nulled(components.disagreement),
            "tolerance": components.tolerance,
        },
        "closed": nulled(components.closed),
        "tokens": None if tokens is None else nulled(tokens),
        "reasons": [
            {"segment": segment, "reason": reason}
            for segment, reason in components.reasons.items()
        ],
    }


def components_from_json(
    fields: Fields, rows: int, segments: int, text: int
) -> Components | None:
    """What `components_to_json` wrote under the name `components`.

    Raises:
        ArtifactError: If a field is missing or of another kind, or shapes disagree.
    """
    if fields.values.get("components") is None:
        return None
    own = fields.record("components")
    n = len(own.entries("kind"))
    certificate = own.record("certificate")
    table, each = (rows, segments), (n,)
    tokens = own.values.get("tokens")
    found: dict[str, Any] = {
        "segments": own.counts("segment", each),
        "indices": _numbers(own, "index", n),
        "sources": _numbers(own, "source", n),
        "credits": own.floats("credits", (rows, n)),
        "others": own.floats("others", table),
        "n_parts": own.counts("n_parts", (segments,)),
        "residual": certificate.floats("residual", table),
        "disagreement": certificate.floats("disagreement", table),
        "closed": own.floats("closed", table),
        "tokens": None if tokens is None else own.floats("tokens", (*table, text)),
    }
    words: dict[str, Any] = {
        "by": own.text("by"),
        "kinds": own.texts("kind"),
        "tolerance": certificate.number("tolerance"),
        "reasons": _reasons(own),
    }
    return _checked(Components(**found, **words), segments)


def components_tensors(components: Components | None) -> dict[str, np.ndarray]:
    """The arrays, by the names of their tensors."""
    if components is None:
        return {}
    names = [*ARRAYS] + ([] if components.tokens is None else ["tokens"])
    return {f"{PREFIX}{name}": getattr(components, name) for name in names}


def components_words(components: Components | None) -> dict[str, Any] | None:
    """Everything that is no array."""
    if components is None:
        return None
    written = components_to_json(components)
    assert written is not None  # there are some
    names = ("by", "kind", "reasons")
    return {name: written[name] for name in names} | {"tolerance": components.tolerance}


def components_from_tensors(
    fields: Fields, tensors: dict[str, np.ndarray], sizes: dict[str, int]
) -> Components | None:
    """What a safetensors file holds of them.

    Args:
        fields: The words of the file.
        tensors: All its arrays.
        sizes: Numbers of rows, segments and tokens of the text.

    Raises:
        ArtifactError: If an array is missing or does not fit.
    """
    if fields.values.get("components") is None:
        return None
    own = fields.record("components")
    kinds = own.texts("kind")
    known = sizes | {"parts": len(kinds)}
    arrays: dict[str, Any] = {}
    for name, (kind, axes) in ARRAYS.items():
        arrays[name] = _tensor(tensors, name, kind, tuple(known[a] for a in axes))
    arrays["tokens"] = None
    if f"{PREFIX}tokens" in tensors:
        shape = (sizes["rows"], sizes["segments"], sizes["text"])
        arrays["tokens"] = _tensor(tensors, "tokens", "f", shape)
    found = Components(
        **arrays,
        by=own.text("by"),
        kinds=kinds,
        tolerance=own.number("tolerance"),
        reasons=_reasons(own),
    )
    return _checked(found, sizes["segments"])


def _tensor(
    tensors: dict[str, np.ndarray], name: str, kind: str, shape: tuple[int, ...]
) -> np.ndarray:
    """One array, as it must be."""
    array = tensors.get(f"{PREFIX}{name}")
    if array is None:
        raise ArtifactError(f"the array `{PREFIX}{name}` is missing")
    if array.dtype.kind != kind or array.shape != shape:
        raise ArtifactError(
            f"`{PREFIX}{name}` is {array.dtype} of shape {array.shape}, not {shape}"
        )
    return array


def _checked(components: Components, n_segments: int) -> Components:
    """The same, refused if a part lies in no segment."""
    found = components.segments
    if len(found) and not (found.min() >= 0 and found.max() < n_segments):
        raise ArtifactError("`components` names a segment that does not exist")
    return components


def _or_none(numbers: np.ndarray) -> list[int | None]:
    """Numbers, with null for none."""
    return [None if number < 0 else number for number in numbers.tolist()]


def _numbers(own: Fields, name: str, n: int) -> np.ndarray:
    """Numbers, with -1 for null."""
    given = own.entries(name)
    filled = {name: [-1 if number is None else number for number in given]}
    return Fields(filled, own.where).counts(name, (n,))


def _reasons(own: Fields) -> dict[int, str]:
    """Why segments were not opened."""
    entries = own.records("reasons")
    return {entry.integer("segment"): entry.text("reason") for entry in entries}
