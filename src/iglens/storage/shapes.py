"""What shape every array of a result has, checked before one is put together."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import ArtifactError
from ..records import Attribution

ARRAYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "token_ids": ("i", ("text",)),
    "positions": ("i", ("rows",)),
    "levels": ("f", ("rows", "points")),
    "credits": ("f", ("rows", "segments")),
    "writes": ("f", ("rows", "segments")),
    "top1": ("b", ("rows", "points")),
    "pruned": ("b", ("rows", "points")),
    "model_value": ("f", ("rows",)),
    "noise_floor": ("f", ("rows",)),
    "fidelity": ("f", ("rows",)),
    "log_fidelity": ("f", ("rows",)),
    "rank": ("i", ("rows", "points")),
    "lens_kl": ("f", ("rows", "points")),
    "top_ids": ("i", ("rows", "points", "top")),
    "top_probabilities": ("f", ("rows", "points", "top")),
}
"""NumPy kind and axes of every array field of `Attribution`."""


def assembled(arguments: Mapping[str, Any]) -> Attribution:
    """The result made of these arguments, if they describe one.

    Raises:
        ArtifactError: If shapes, kinds or indices disagree.
    """
    sizes = {
        "text": len(arguments["token_texts"]),
        "rows": len(arguments["targets"]),
        "points": len(arguments["segments"]) + 1,
        "segments": len(arguments["segments"]),
    }
    if not sizes["segments"]:
        raise ArtifactError("`segments` is empty, so there is no path")
    for name, (kind, axes) in ARRAYS.items():
        _check_array(name, arguments[name], kind, axes, sizes)
    _check_indices(arguments, sizes)
    return Attribution(**arguments)


def _check_array(
    name: str,
    array: np.ndarray,
    kind: str,
    axes: tuple[str, ...],
    sizes: dict[str, int],
) -> None:
    """Compare with the sizes known so far; an axis met first sets its size."""
    if array.dtype.kind != kind:
        raise ArtifactError(f"`{name}` holds {array.dtype}")
    fits = array.ndim == len(axes) and all(
        sizes.setdefault(axis, size) == size
        for axis, size in zip(axes, array.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(f"{sizes.get(axis, 'any')} {axis}" for axis in axes)
        raise ArtifactError(
            f"`{name}` has shape {array.shape}, but the rest of it has {wanted}"
        )


def _check_indices(arguments: Mapping[str, Any], sizes: dict[str, int]) -> None:
    """Refuse positions and flags of cells that do not exist."""
    for position in arguments["positions"].tolist():
        if not 0 <= position <= sizes["text"]:
            raise ArtifactError(
                f"`positions` holds {position}, but the text has {sizes['text']} tokens"
            )
    for flag in arguments["flags"]:
        point = 0 if flag.point is None else flag.point
        if not (0 <= flag.row < sizes["rows"] and 0 <= point < sizes["points"]):
            raise ArtifactError(
                f"`flags` names row {flag.row}, point {flag.point}, which do not exist"
            )
