"""What must be said of some model types, as a user would: data, verified like all."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from iglens.model.declaration import Declaration

CODEBOOKS, IMAGE_TOKENS, IMAGE_TOKEN = 4, 4, 90


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


def _behind_an_image(ids: Tensor) -> Mapping[str, Any]:
    """An image of its own, always the same, in front of the text."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, 32, 32, generator=generator).expand(len(ids), -1, -1, -1)
    front = torch.full((len(ids), IMAGE_TOKENS), IMAGE_TOKEN)
    return {
        "input_ids": torch.cat([front, ids], 1),
        "pixel_values": image,
        "use_cache": False,
    }


def _behind_a_question(ids: Tensor) -> Mapping[str, Any]:
    """The same where a second text says what to look for in the image."""
    question = torch.ones(len(ids), 2, dtype=torch.int64)
    return {**_behind_an_image(ids), "qformer_input_ids": question}


DECLARATIONS: dict[str, Declaration] = {
    "blip-2": Declaration(inputs=_behind_an_image),
    "instructblip": Declaration(inputs=_behind_a_question),
    "cpmant": Declaration(causal=False),
    "musicgen": Declaration(inputs=_codebooks),
    "musicgen_melody": Declaration(inputs=_codebooks),
    "paligemma": Declaration(causal=False),
    "prophetnet": Declaration(inputs=_without_mask, causal=False),
    "xlm": Declaration(first="transformer.attentions.0"),
    "xlnet": Declaration(inputs=_left_to_right),
}
