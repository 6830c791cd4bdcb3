"""The model of a saved result, loaded as it was loaded then."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .groups import Loading

if TYPE_CHECKING:
    from ..records import Attribution

RESULTS = (".safetensors", ".json")
"""Extensions of the files that can be loaded again."""


def result_file(text: str) -> "Attribution | None":
    """The result in a file, or None if the text is a prompt.

    It is a file if there is one, or if it is a single word that ends like one.

    Raises:
        ArtifactError: If it names a file that is missing, or no whole result.
    """
    path = Path(text)
    if path.suffix.lower() not in (*RESULTS, ".csv", ".parquet"):
        return None
    there = False
    with suppress(OSError, ValueError):  # too long for a name, or with a null byte
        there = path.is_file()
    if not there and len(text.split()) != 1:
        return None
    from ..storage import load

    return load(path)


def as_recorded(
    result: "Attribution", model: str | None, loading: Loading
) -> tuple[str, Loading]:
    """What to load, and how, where an option does not say otherwise.

    Raises:
        ArgumentError: If the result does not name its model, and no option does.
    """
    from ..explaining.recorded import recorded_model

    then = result.provenance
    attention = then.settings.get("attn_implementation")
    loading = replace(
        loading,
        dtype=loading.dtype or then.model.dtype,
        attn_implementation=loading.attn_implementation
        or (attention if isinstance(attention, str) else None),
    )
    if model is not None:
        return model, loading
    known = recorded_model(result)
    return known.name, replace(loading, revision=loading.revision or known.revision)
