"""Lenses from files, taken only if they belong to the model."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ...errors import ArgumentError, ArtifactError, NonFiniteError
from ...model.decoder import Decoder
from ...readout.lens import AbstractLens, AffineLens, LensInfo, LogitLens
from ...readout.unembedding import unembedding_sha256
from ...storage.fields import Fields
from ...storage.lens_form import read_lens
from ...storage.model_form import model_info
from .cache import cached_lens
from .published import is_published, read_published


def load_lens(decoder: Decoder, lens: str | Path = "auto") -> AbstractLens:
    """The lens of a model by name or file.

    Args:
        decoder: The model the lens is for.
        lens: "logit" for none; "auto" for the one that `iglens lens fit` left in this
            user's cache; a file of `lens.save`; or a folder with a published tuned
            lens (`config.json` and `params.pt`).

    Returns:
        The lens; its `notes` say what a reader must know, such as that it was fitted
        on other weights under the same unembedding.

    Raises:
        ArgumentError: If there is no lens of this model in the cache.
        ArtifactError: If the file is no lens, or the lens of another model.
    """
    if lens == "logit":
        return LogitLens()
    if lens == "auto":
        path = cached_lens(decoder)
        note = f"The lens was taken from the cache: {path}."
        return _noted(_fitting(decoder, read_lens_file(path), path), note)
    path = Path(lens).expanduser()
    if is_published(path):
        return read_published(decoder, path)
    if path.is_dir():
        raise ArtifactError(
            f"The folder {path} holds no lens: a published tuned lens has config.json "
            "and params.pt."
        )
    return _fitting(decoder, read_lens_file(path), path)


def lens_file(decoder: Decoder, lens: str | Path) -> Path | None:
    """The file or folder that `load_lens` reads; None for "logit".

    Raises:
        ArgumentError: If there is no lens of this model in the cache.
    """
    if lens == "logit":
        return None
    return cached_lens(decoder) if lens == "auto" else Path(lens).expanduser()


def read_lens_file(path: Path) -> AffineLens:
    """The lens in a file, whatever its model.

    Raises:
        ArtifactError: If it cannot be read, or its parts disagree.
    """
    fields, arrays = read_lens(path)
    with _complete(path):
        _check_arrays(fields, arrays)
        return AffineLens(
            name=fields.text("name"),
            n_layers=fields.integer("n_layers"),
            layers=tuple(arrays["layers"].tolist()),
            weight=torch.from_numpy(arrays["weight"]),
            bias=torch.from_numpy(arrays["bias"]),
            info=info_from(fields),
        )


@contextmanager
def _complete(path: Path) -> Iterator[None]:
    """Whatever is refused inside names the file."""
    try:
        yield
    except (ArgumentError, ArtifactError, NonFiniteError) as error:
        text = str(error).rstrip(".")
        raise ArtifactError(f"{path} cannot be read: {text}.") from error


def _check_arrays(fields: Fields, arrays: dict[str, np.ndarray]) -> None:
    """Refuse arrays of other shapes or kinds than the header says."""
    count, d_model = arrays["layers"].size, fields.integer("d_model")
    expected = {
        "layers": ((count,), "i"),
        "weight": ((count, d_model, d_model), "f"),
        "bias": ((count, d_model), "f"),
    }
    for name, (shape, kind) in expected.items():
        found = arrays[name]
        if found.shape != shape or found.dtype.kind != kind:
            raise ArtifactError(
                f"`{name}` is {found.dtype} of shape {found.shape}, but the lens calls "
                f"for shape {shape}"
            )


def info_from(fields: Fields) -> LensInfo:
    """Where a lens comes from, as `dataclasses.asdict` wrote it."""
    versions = fields.record("versions")
    return LensInfo(
        model=model_info(fields.record("model")),
        unembed_sha256=fields.text_or_none("unembed_sha256"),
        method=fields.text("method"),
        settings=dict(fields.record("settings").values),
        versions={name: versions.text(name) for name in versions.values},
        created=fields.text("created"),
    )


def _fitting(decoder: Decoder, lens: AffineLens, path: Path) -> AffineLens:
    """The lens, if it belongs to this model.

    Raises:
        ArtifactError: If it does not, saying in what they differ.
    """
    info, own = lens.info, decoder.info
    assert info is not None  # every file has it
    sizes = {
        "layers": (lens.n_layers, decoder.n_layers),
        "dimensions": (lens.d_model, decoder.readout.d_model),
        "tokens": (info.model.vocab_size, own.vocab_size),
    }
    for what, (theirs, ours) in sizes.items():
        if theirs != ours:
            raise ArtifactError(
                f"{path} is a lens of {info.model.id}, which has {theirs} {what}; "
                f"{own.id} has {ours}. Fit one with `iglens lens fit`."
            )
    same_files = own.weights_sha256 is not None and (
        own.weights_sha256 == info.model.weights_sha256
    )
    if same_files:
        return lens
    unembed = unembedding_sha256(decoder.readout)
    if unembed is None or info.unembed_sha256 is None:
        raise ArtifactError(
            f"{path} is a lens of {info.model.id}, and there is no telling whether "
            f"{own.id} is the same model: no unembedding can be read to compare, and "
            "the weight files are not known to be the same."
        )
    if unembed != info.unembed_sha256:
        raise ArtifactError(
            f"{path} is a lens of {info.model.id} in {info.model.dtype}: the "
            f"unembedding of {own.id} in {own.dtype} is another. Fit one with `iglens "
            "lens fit`, or load the model as it was loaded then."
        )
    if own.weights_sha256 is None or info.model.weights_sha256 is None:
        return lens
    return _noted(
        lens,
        f"The lens was fitted on {info.model.id}, whose unembedding is that of "
        f"{own.id} but whose other weights differ.",
    )


def _noted(lens: AffineLens, note: str) -> AffineLens:
    """The lens with one more sentence for its readers."""
    return replace(lens, notes=(*lens.notes, note))
