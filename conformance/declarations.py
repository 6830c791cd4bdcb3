"""What must be said of some model types, as a user would: data, verified like all."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from iglens.model.declaration import Declaration

CODEBOOKS = 4


def _codebooks(ids: Tensor) -> Mapping[str, Any]:
    """The same ids in every codebook; texts and codebooks share an axis."""
    return {"input_ids": ids.repeat_interleave(CODEBOOKS, 0), "use_cache": False}


def _left_to_right(ids: Tensor) -> Mapping[str, Any]:
    """A model that could read in any order, reading from left to right."""
    length = ids.shape[1]
    later = torch.ones(length, length, device=ids.device).triu(1)
    return {"input_ids": ids, "perm_mask": later.expand(len(ids), -1, -1)}


def _without_mask(ids: Tensor) -> Mapping[str, Any]:
    """Ids alone: a mask of ones becomes NaN in float64 (zero times infinity)."""
    return {"input_ids": ids, "use_cache": False}


DECLARATIONS: dict[str, Declaration] = {
    "cpmant": Declaration(causal=False),
    "musicgen": Declaration(inputs=_codebooks),
    "musicgen_melody": Declaration(inputs=_codebooks),
    "paligemma": Declaration(causal=False),
    "prophetnet": Declaration(inputs=_without_mask, causal=False),
    "xlm": Declaration(first="transformer.attentions.0"),
    "xlnet": Declaration(inputs=_left_to_right),
}
