"""What the relatives of IG-Lens give layers, text by text."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ..gating.stage import Stage
from ..methods import AbstractMethod
from ..methods.setting import Setting, setting_of
from ..readout.lens import AbstractLens
from ..records.comparison import Entry
from ..records.contributions import per_layer
from .prepared import Texts

Numbers = dict[str, Float[np.ndarray, "texts segments"]]


def numbers_of(
    texts: Texts,
    methods: Sequence[AbstractMethod],
    lens: AbstractLens | None,
    n_steps: int,
    stage: Stage,
) -> tuple[Numbers, dict[str, str]]:
    """What every method gives every layer, in its own unit.

    Args:
        texts: What is audited, by whole layers.
        methods: The methods.
        lens: A fitted lens, or None.
        n_steps: Steps of the methods that integrate.
        stage: Told of every method that is done.

    Returns:
        Numbers by method, NaN where it cannot be had; and why it cannot, where so.
    """
    settings = [
        setting_of(
            texts.decoder,
            result,
            lens=lens,
            n_steps=n_steps,
            strict=texts.manner.strict,
        )
        for result in texts.results
    ]
    settings[0].warm(methods)
    stage.total = len(methods) * len(settings)
    numbers, reasons = Numbers(), dict[str, str]()
    for method in methods:
        rows = []
        for setting, result in zip(settings, texts.results, strict=True):
            entry = setting.entry(method)
            if entry.reason is not None:
                reasons[method.name] = entry.reason
            rows.append(_row(entry, setting, float(result.baseline[0])))
            stage(1)
        numbers[method.name] = np.array(rows)
    return numbers, reasons


def _row(entry: Entry, setting: Setting, start: float) -> list[float]:
    """What one method gives the layers of one text; NaN for none."""
    layers = range(1, setting.decoder.n_layers + 1)
    if entry.found is None:
        return [float("nan") for _ in layers]
    given = per_layer(entry.found, entry.found.values, start)
    return [given.get(layer, float("nan")) for layer in layers]
