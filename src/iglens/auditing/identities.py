"""What must agree by construction, measured in every audit.

The model with all blocks after the k-th skipped hands the k-th state to its own tail:
its level is what the readout says at layer k. So the effect of skipping the last block
is the credit of the last layer. Whoever takes blocks out wrongly, or reads states that
are none of the model's, misses one of the two.
"""

from collections.abc import Sequence

import numpy as np
import torch

from ..records import Attribution
from ..records.audit import Identities
from .prepared import Texts


def measured(texts: Texts) -> Identities:
    """Both identities at a few layers of every text.

    Runs skip blocks at all tokens, whatever the audit does.
    """
    layers = layers_to_try(texts.decoder.n_layers)
    numbers = torch.tensor([column.layer for column in texts.gated.columns])
    gates = torch.stack([(numbers <= layer).double() for layer in layers])
    gates = torch.cat([gates, torch.ones(1, len(numbers), dtype=torch.float64)])
    subjects = texts.plainly(texts.stage)
    levels = np.stack([subject.levels(gates).numpy() for subject in subjects])
    read = np.stack([_levels(result, layers) for result in texts.results])
    last = np.array(texts.results[0].layers) == texts.decoder.n_layers
    credits = [result.credits[0, last].sum() for result in texts.results]
    return Identities(
        layers=layers,
        readout=levels[:, :-1] - read,
        last=levels[:, -1] - levels[:, -2] - np.array(credits),
        noise_floor=np.array([result.noise_floor[0] for result in texts.results]),
    )


def layers_to_try(n_layers: int) -> tuple[int, ...]:
    """The embedding, two layers between, and the last but one."""
    tried = {0, n_layers // 3, 2 * n_layers // 3, n_layers - 1}
    return tuple(sorted(tried))


def runs_of_identities(n_layers: int) -> int:
    """Forward passes that they take for one text."""
    return len(layers_to_try(n_layers)) + 1


def _levels(result: Attribution, layers: Sequence[int]) -> np.ndarray:
    """What the readout says at the ends of some layers."""
    ends = {layer: at for at, layer in enumerate(result.point_layers)}  # the last of it
    return result.levels[0, [ends[layer] for layer in layers]]
