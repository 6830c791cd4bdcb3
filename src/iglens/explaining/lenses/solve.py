"""Ridge translators of every layer, from the moments of some text."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
import torch
from torch import Tensor

from ...errors import ArgumentError
from ...model.decoder import Decoder
from ...model.loading.child import Progress, silent
from ...readout import MEMORY_BUDGET
from ...readout.lens import AffineLens, LensInfo
from ...readout.unembedding import unembedding_sha256
from ..choices import choose_layers
from .accumulate import MEMORY, accumulate, groups_within
from .evaluate import scores_on
from .moments import Moments
from .parts import Parts
from .ridge import ridge_translator

PENALTIES = (0.01, 0.1, 1.0)
"""Ridge penalties to choose from, relative to the mean variance of the states."""

_PROBES = 4
_PROBE_TOKENS = 128

Translators = Mapping[int, tuple[Tensor, Tensor]]
"""`A` and `b` by layer."""


def fit_on(
    decoder: Decoder,
    parts: Parts,
    layers: Sequence[int],
    *,
    ridge: float | None = None,
    memory_budget: int = MEMORY,
    progress: Progress = silent,
) -> AffineLens:
    """A ridge lens of these layers; the documents held out are not looked at.

    Args:
        decoder: The model.
        parts: What it reads.
        layers: Layers that get a translator.
        ridge: Penalty; None to choose it on `parts.choice`, which is fitted on
            afterwards too.
        memory_budget: Bytes for moments.
        progress: Told how far it is.
    """
    groups = groups_within(memory_budget, layers, decoder.readout.d_model)
    chosen = ridge
    moments: dict[int, Moments] = {}
    if chosen is None:
        probes = _probes(layers)
        wanted = groups[0] if len(groups) == 1 else probes
        moments = accumulate(decoder, parts.fit, wanted, progress)
        known = {layer: moments[layer] for layer in probes}
        chosen = _choose(decoder, parts, known, progress)
    translators = {}
    for group in groups:
        if len(groups) == 1 and moments:  # only what has not been read yet
            accumulate(decoder, parts.choice, group, progress, moments)
        else:
            moments = accumulate(decoder, parts.learned, group, progress)
        for layer in group:
            translators[layer] = _translator(moments[layer], chosen, layer)
            progress("solving", len(translators), len(layers))
    settings = {"ridge": chosen, "ridge_chosen": ridge is None, **parts.settings}
    return _lens(decoder, translators, info_of(decoder, "ridge", settings))


def fitted_layers(decoder: Decoder, layers: str | Sequence[int]) -> tuple[int, ...]:
    """Layers that get a translator, ascending, without the last.

    Raises:
        ArgumentError: If that leaves none, or names a layer there is not.
    """
    last = decoder.n_layers
    wanted = choose_layers(layers, last)
    if wanted is not None and (odd := sorted(set(wanted) - set(range(last + 1)))):
        raise ArgumentError(
            f"`layers` names {odd[0]}; {decoder.info.id} has 0 to {last}."
        )
    chosen = tuple(i for i in range(last) if wanted is None or i in wanted)
    if not chosen:
        raise ArgumentError(
            f"`layers` {layers!r} leaves nothing to fit: layer {last} is the identity."
        )
    return chosen


def info_of(decoder: Decoder, method: str, settings: dict[str, object]) -> LensInfo:
    """Where a lens that is made now comes from."""
    return LensInfo(
        model=decoder.info,
        unembed_sha256=unembedding_sha256(decoder.readout),
        method=method,
        settings=settings,
        versions=decoder.provenance().versions,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _probes(layers: Sequence[int]) -> tuple[int, ...]:
    """A few layers, evenly spaced."""
    places = np.linspace(0, len(layers) - 1, min(_PROBES, len(layers)))
    return tuple(layers[int(place)] for place in places.round())


def _choose(
    decoder: Decoder, parts: Parts, known: Mapping[int, Moments], progress: Progress
) -> float:
    """The penalty of least divergence at a few layers, on documents not fitted on.

    By the mean of its logarithm: early layers are far off and late ones close, and
    each is to count.
    """
    found = {}
    for done, penalty in enumerate(PENALTIES, 1):
        parts_of = {i: _translator(m, penalty, i) for i, m in known.items()}
        (scores,) = scores_on(
            decoder,
            [_lens(decoder, parts_of)],
            parts.choice,
            tuple(known),
            tokens=_PROBE_TOKENS,
            memory_budget=MEMORY_BUDGET,
        )
        found[penalty] = float(np.log(scores.kl_bits.clip(1e-9)).mean())
        progress("choosing the penalty", done, len(PENALTIES))
    return min(found, key=found.__getitem__)


def _translator(moments: Moments, penalty: float, layer: int) -> tuple[Tensor, Tensor]:
    """`A` and `b` in float32."""
    weight, bias = ridge_translator(moments, penalty, layer=layer)
    return weight.float().cpu(), bias.float().cpu()


def _lens(
    decoder: Decoder, translators: Translators, info: LensInfo | None = None
) -> AffineLens:
    """A lens of these translators."""
    return AffineLens(
        "ridge",
        decoder.n_layers,
        tuple(translators),
        torch.stack([weight for weight, _ in translators.values()]),
        torch.stack([bias for _, bias in translators.values()]),
        info,
    )
