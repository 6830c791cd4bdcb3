"""A lens as a safetensors file: its translators, and where they come from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..errors import ArtifactError
from .atomic import reason, replacing
from .fields import Fields
from .plain import plain

LENS_SCHEMA = "iglens.lens/1"
"""Name and version of the form. Fields may be added within a version, never renamed."""

KEY = "iglens"
"""Where the file's own metadata holds ours, as JSON."""

_ARRAYS = ("layers", "weight", "bias")


def write_lens(
    path: Path, header: Mapping[str, object], arrays: Mapping[str, np.ndarray]
) -> None:
    """Write a lens, whole or not at all.

    Args:
        path: Where to; any extension.
        header: What there is to say besides the arrays.
        arrays: "layers", "weight" and "bias".

    Raises:
        OutputError: If the place is not writable.
    """
    text = json.dumps(plain({"schema": LENS_SCHEMA, **header}), allow_nan=False)
    packed = {name: np.ascontiguousarray(arrays[name]) for name in _ARRAYS}
    with replacing(path) as temporary:
        save_file(packed, temporary, {KEY: text})


def read_lens(path: Path) -> tuple[Fields, dict[str, np.ndarray]]:
    """Header and arrays that `write_lens` wrote.

    Raises:
        ArtifactError: If there is no such file, or it is not a whole lens of a schema
            this version reads.
    """
    try:
        with path.open("rb"):  # the reader's own words for this differ by system
            pass
        with safe_open(path, framework="numpy") as file:
            fields = _header(file.metadata() or {})
            if missing := sorted(set(_ARRAYS) - set(file.keys())):
                raise ArtifactError(f"the array `{missing[0]}` is missing")
            return fields, {name: file.get_tensor(name) for name in _ARRAYS}
    except ArtifactError as error:
        raise ArtifactError(f"{path} cannot be read: {error}.") from error
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {reason(error)}.") from error
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{path} cannot be read: it is not whole or not safetensors ({error})."
        ) from error


def _header(metadata: Mapping[str, str]) -> Fields:
    """Our JSON out of a file's metadata.

    Raises:
        ArtifactError: If it is not that of a lens.
    """
    if KEY not in metadata:
        raise ArtifactError("it is a safetensors file, but not a lens of iglens")
    try:
        header: Any = json.loads(metadata[KEY])
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"its metadata is not JSON ({error})") from error
    found = header.get("schema") if isinstance(header, dict) else None
    if found != LENS_SCHEMA:
        raise ArtifactError(
            f"its `schema` is {found!r}, and this version of iglens reads lenses of "
            f"{LENS_SCHEMA!r}"
        )
    return Fields(header)
