"""Where lenses live that were fitted without naming a file.

CACHE/lenses/HEAD-WEIGHTS.safetensors    by the hashes of unembedding and weight files
"""

from pathlib import Path

from ...errors import ArgumentError
from ...model.decoder import Decoder
from ...model.loading.cache import cache_root
from ...readout.unembedding import unembedding_sha256


def lens_path(decoder: Decoder) -> Path:
    """The file of this model's lens in the user's cache, written or not.

    Raises:
        ArgumentError: If nothing tells this model from others.
    """
    head = unembedding_sha256(decoder.readout)
    weights = decoder.info.weights_sha256
    if head is None and weights is None:
        raise ArgumentError(
            f"{decoder.info.id} has no unembedding that can be read and no weight "
            "files that are known, so a lens of it cannot be found again. Name a file "
            "with `-o`, and load the model by name to use it."
        )
    return _folder() / f"{_short(head)}-{_short(weights)}.safetensors"


def cached_lens(decoder: Decoder) -> Path:
    """The lens in the user's cache that suits a model best.

    Its own first, then one of the same weight files (loaded in another dtype), then
    one under the same unembedding; the newest of several.

    Raises:
        ArgumentError: If there is none.
    """
    own = lens_path(decoder)
    if own.is_file():
        return own
    head, weights = own.stem.split("-")
    for pattern in (f"*-{weights}", f"{head}-*"):
        known = [] if "unknown" in pattern else _folder().glob(f"{pattern}.safetensors")
        if found := sorted(known, key=lambda path: path.stat().st_mtime):
            return found[-1]
    name = decoder.info.id
    raise ArgumentError(
        f"No lens of {name} has been fitted here. Fit one with `iglens lens fit "
        f"{name}`, name a file with `--lens`, or read the raw states with `--lens "
        "logit`."
    )


def _folder() -> Path:
    """Where lenses are."""
    return cache_root() / "lenses"


def _short(digest: str | None) -> str:
    """The part of a hash that goes into a name."""
    return "unknown" if digest is None else digest[:16]
