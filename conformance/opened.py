"""Do credits below the layer add up, and how far down can a class be opened?

The sums are taken anew, from the credits that a result holds: parts of a block against
the layer map, and heads, neurons, experts and what heads read against their parts.
"""

import numpy as np
import torch

from iglens import Decoder, Target, attribute
from iglens.attribution.path import LEVELS, Level
from iglens.errors import IGLensError
from iglens.model.discover import arbitrary_tokens
from iglens.records import Attribution

TOKENS = 11
NAMES = {"head": "heads", "neuron": "neurons", "source": "sources"}


def opened(decoder: Decoder) -> tuple[str, float]:
    """What can be opened, in words, and the largest amount that a sum misses.

    Relative to the largest credit of the map, as models with random weights may have
    small ones alone.
    """
    ids = arbitrary_tokens(decoder.model, (1, TOKENS))[0].flip(0).tolist()
    position = decoder.explainable(ids)[-1]
    target = Target((0,), "first")
    layers = _asked(decoder, ids, position, "layer", target)
    size = max(float(np.abs(layers.credits).max()), 1e-6)
    words, missed = [], [0.0]
    for by in LEVELS[1:]:
        try:
            found = _asked(decoder, ids, position, by, target)
        except IGLensError:
            continue
        missed.append(_gap(found.by_layer.credits, layers.credits))
        if found.components is not None:
            words += _words(found, by)
            missed.append(_gap(found.components.totals, found.credits))
            inside = np.unique(found.components.segments)
            missed.append(float(np.abs(found.components.others[:, inside]).max()))
    return ", ".join(words), max(missed) / size


def _asked(
    decoder: Decoder, ids: list[int], position: int, by: Level, target: Target
) -> Attribution:
    """One target after the whole text."""
    trace = decoder.trace(ids, [position], by=by)
    return attribute(trace, target, by=by, precision=torch.float64)


def _words(found: Attribution, by: str) -> list[str]:
    """What was opened, with "some" where not in every layer that is split."""
    inside = found.components
    assert inside is not None  # asked for
    layers = {s.layer for s in found.segments if s.is_part}
    here = {found.segments[at].layer for at in inside.segments.tolist()}
    name = NAMES[by]
    if "expert" in inside.kinds:
        name = "experts" if "neuron" not in inside.kinds else "neurons and experts"
    return [name if here == layers else f"some {name}"]


def _gap(ours: np.ndarray, own: np.ndarray) -> float:
    """Largest difference."""
    return float(np.abs(ours - own).max())
