"""Published tuned lenses: folders that the `tuned-lens` package writes.

`config.json` says of which model, `params.pt` holds `{i}.weight` and `{i}.bias` of the
translator of `h_i`, for i from 0 to the last layer but one. They are added to the
state, as ours are.

References:
    Belrose et al. (2023), Eliciting Latent Predictions from Transformers with the
    Tuned Lens, arXiv 2303.08112.
"""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import ArtifactError, NonFiniteError
from ...model.decoder import Decoder
from ...readout import LinearReadout
from ...readout.lens import AffineLens, LensInfo
from ...readout.unembedding import unembedding_sha256
from ...storage.fields import Fields

_CONFIG, _PARAMS = "config.json", "params.pt"


def is_published(path: Path) -> bool:
    """Whether a folder looks like one that `tuned-lens` wrote."""
    return (path / _CONFIG).is_file() and (path / _PARAMS).is_file()


def read_published(decoder: Decoder, folder: Path) -> AffineLens:
    """The tuned lens in a folder, in float32.

    Raises:
        ArtifactError: If it cannot be read, or is that of another model.
    """
    try:
        config = _config(folder / _CONFIG)
        notes = _check_model(config, decoder)
        weight, bias = _translators(folder / _PARAMS, config)
        lens = AffineLens(
            "tuned-lens", len(weight), tuple(range(len(weight))), weight, bias
        )
    except (ArtifactError, NonFiniteError) as error:
        text = str(error).rstrip(".")
        raise ArtifactError(f"{folder} cannot be used as a lens: {text}.") from error
    name, revision = config.text("base_model_name_or_path"), "base_model_revision"
    info = LensInfo(
        model=replace(
            decoder.info,
            id=name,
            path=None,
            revision=config.text_or_none(revision) if revision in config.values else "",
            weights_sha256=None,
            dtype="unknown",
        ),
        unembed_sha256=unembedding_sha256(decoder.readout),
        method="tuned-lens",
        settings={"config": dict(config.values)},
    )
    return replace(lens, info=info, notes=notes)


def published_hash(unembed: Tensor) -> str:
    """The hash of an unembedding that `tuned-lens` writes.

    Of the matrix's printed form, which shows its corners to one decimal.
    """
    defaults: dict[str, Any] = {"threshold": 1000, "edgeitems": 3, "linewidth": 75}
    with np.printoptions(**defaults, suppress=False, floatmode="maxprec", sign="-"):
        text = np.array_str(unembed.cpu().numpy(), precision=1)
    return hashlib.sha256(text.encode()).hexdigest()


def _config(path: Path) -> Fields:
    """The configuration.

    Raises:
        ArtifactError: If it is not JSON, or of a lens that is not linear.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"its {_CONFIG} is not JSON ({error})") from error
    if not isinstance(values, dict):
        raise ArtifactError(f"its {_CONFIG} is no object")
    kind = values.get("lens_type", "linear_tuned_lens")
    if kind != "linear_tuned_lens":
        raise ArtifactError(
            f"its `lens_type` is {kind!r}; only linear_tuned_lens can be read"
        )
    return Fields(values)


def _check_model(config: Fields, decoder: Decoder) -> tuple[str, ...]:
    """Refuse the lens of another model; notes on what could not be told.

    Raises:
        ArtifactError: If sizes, or name and unembedding, are others.
    """
    name, own = config.text("base_model_name_or_path"), decoder.info.id
    for field, ours in (
        ("num_hidden_layers", decoder.n_layers),
        ("d_model", decoder.readout.d_model),
    ):
        if (theirs := config.integer(field)) != ours:
            raise ArtifactError(
                f"it is for {name} with `{field}` {theirs}, and {own} has {ours}"
            )
    if config.values.get("unembed_hash") in _own_hashes(decoder):
        return ()
    if _last_part(name) != _last_part(own):
        raise ArtifactError(
            f"it is for {name}, and neither the name nor the unembedding of {own} is "
            "the same"
        )
    return (
        f"The lens names {name} as its model, but that its unembedding is the one of "
        f"{own} could not be confirmed.",
    )


def _own_hashes(decoder: Decoder) -> set[str]:
    """What the model's unembedding may have been hashed to, by its dtype then."""
    readout = decoder.readout
    if not isinstance(readout, LinearReadout):
        return set()
    unembed, _ = readout.weights()
    return {published_hash(unembed.to(t)) for t in (torch.float32, torch.float16)}


def _last_part(name: str) -> str:
    """A model's name without where it is from."""
    return name.rstrip("/").replace("\\", "/").rsplit("/", 1)[-1].lower()


def _translators(path: Path, config: Fields) -> tuple[Tensor, Tensor]:
    """`A` and `b` of every layer, in float32.

    Raises:
        ArtifactError: If the file is damaged, or a tensor missing or of another shape.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader raises any kind
        text = " ".join(str(error).split())[:200]
        raise ArtifactError(f"its {_PARAMS} cannot be read ({text})") from error
    if not isinstance(state, dict):
        raise ArtifactError(f"its {_PARAMS} holds no tensors by name")
    count, size = config.integer("num_hidden_layers"), config.integer("d_model")
    weights = [_tensor(state, f"{i}.weight", (size, size)) for i in range(count)]
    if config.values.get("bias", True):
        biases = [_tensor(state, f"{i}.bias", (size,)) for i in range(count)]
    else:
        biases = [torch.zeros(size)] * count
    return torch.stack(weights), torch.stack(biases)


def _tensor(state: dict[str, Any], name: str, shape: tuple[int, ...]) -> Tensor:
    """One tensor, in float32.

    Raises:
        ArtifactError: If it is missing or of another shape.
    """
    found = state.get(name)
    if not isinstance(found, Tensor) or tuple(found.shape) != shape:
        what = "missing" if found is None else f"not a tensor of shape {shape}"
        raise ArtifactError(f"`{name}` in its {_PARAMS} is {what}")
    return found.float()
