"""What is inside segments, in both complete forms."""

from typing import Any

import numpy as np

from ..errors import ArtifactError
from ..records.components import Components, shared_row
from .fields import Fields
from .plain import nulled

ARRAYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "segments": ("i", ("parts",)),
    "indices": ("i", ("lists", "parts")),
    "sources": ("i", ("lists", "parts")),
    "credits": ("f", ("rows", "parts")),
    "others": ("f", ("rows", "segments")),
    "n_parts": ("i", ("segments",)),
    "residual": ("f", ("rows", "segments")),
    "disagreement": ("f", ("rows", "segments")),
    "closed": ("f", ("rows", "segments")),
}
"""NumPy kind and axes of every array field of `Components` that is always there.

One list of numbers is written where it is the same for all rows.
"""

OPTIONAL = {"tokens": ("rows", "segments", "text"), "router_weights": ("rows", "parts")}
"""Axes of those that may be missing; they hold floats."""

PREFIX = "components."
"""Before the names of tensors in a safetensors file."""


def components_to_json(components: Components | None) -> dict[str, Any] | None:
    """The published form; null for a number that a part does not have."""
    if components is None:
        return None
    tokens, router = components.tokens, components.router_weights
    return {
        "by": components.by,
        "segment": components.segments.tolist(),
        "kind": list(components.kinds),
        "index": [_or_none(row) for row in _lists(components.indices)],
        "source": [_or_none(row) for row in _lists(components.sources)],
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
        "router_weights": None if router is None else nulled(router),
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
    known = {"rows": rows, "segments": segments, "text": text, "parts": n}
    found: dict[str, Any] = {
        "segments": own.counts("segment", each),
        "indices": _numbers(own, "index", (rows, n)),
        "sources": _numbers(own, "source", (rows, n)),
        "credits": own.floats("credits", (rows, n)),
        "others": own.floats("others", table),
        "n_parts": own.counts("n_parts", (segments,)),
        "residual": certificate.floats("residual", table),
        "disagreement": certificate.floats("disagreement", table),
        "closed": own.floats("closed", table),
    }
    for name, axes in OPTIONAL.items():
        given = own.values.get(name) is not None
        shape = tuple(known[axis] for axis in axes)
        found[name] = own.floats(name, shape) if given else None
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
    found = {name: getattr(components, name) for name in (*ARRAYS, *OPTIONAL)}
    found |= {name: _lists(found[name]) for name in ("indices", "sources")}
    return {f"{PREFIX}{name}": a for name, a in found.items() if a is not None}


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
        if "lists" in axes:
            known["lists"] = len(tensors.get(f"{PREFIX}{name}", ()))
        arrays[name] = _tensor(tensors, name, kind, tuple(known[a] for a in axes))
    for name in ("indices", "sources"):
        arrays[name] = _for_rows(arrays[name], sizes["rows"], f"{PREFIX}{name}")
    for name, axes in OPTIONAL.items():
        shape = tuple(known[axis] for axis in axes)
        there = f"{PREFIX}{name}" in tensors
        arrays[name] = _tensor(tensors, name, "f", shape) if there else None
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


def _numbers(own: Fields, name: str, shape: tuple[int, int]) -> np.ndarray:
    """Numbers of every row, with -1 for null."""
    given = own.entries(name)
    filled = [
        [-1 if number is None else number for number in row]
        if isinstance(row, list)
        else row
        for row in given
    ]
    known = Fields({name: filled}, own.where).counts(name, (len(given), shape[1]))
    return _for_rows(known, shape[0], f"{own.where}{name}")


def _lists(numbers: np.ndarray) -> np.ndarray:
    """One row where it is the same for all."""
    return numbers[:1] if shared_row(numbers) else numbers


def _for_rows(lists: np.ndarray, n_rows: int, name: str) -> np.ndarray:
    """One list for every row, from one for all or one for each."""
    if len(lists) not in (1, n_rows):
        raise ArtifactError(
            f"`{name}` has {len(lists)} lists; the {n_rows} rows call for one each, or "
            "one for all"
        )
    return np.broadcast_to(lists, (n_rows, lists.shape[1]))


def _reasons(own: Fields) -> dict[int, str]:
    """Why segments were not opened."""
    entries = own.records("reasons")
    return {entry.integer("segment"): entry.text("reason") for entry in entries}
