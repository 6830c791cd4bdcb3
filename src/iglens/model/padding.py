"""Padding for models that give one row of logits for a whole text.

Such a model looks for the last token of every text that is not padding. Without a
padding token in its configuration it takes one text at a time.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn


def padding_token(model: nn.Module) -> int | None:
    """The padding token of a configuration, or None."""
    found = (getattr(config, "pad_token_id", None) for config in _configs(model))
    return next((token for token in found if isinstance(token, int)), None)


@contextmanager
def padded(
    model: nn.Module,
    ids: Int[Tensor, "texts text"],
    filling: Bool[Tensor, "texts text"],
) -> Iterator[Int[Tensor, "texts text"]]:
    """The texts with padding where they are filled up.

    While open, a configuration without a padding token has one: an id that none of the
    texts holds. One text without filling is left alone.

    Args:
        model: The model.
        ids: Token ids, shorter texts filled up with anything.
        filling: Where they are filled up.
    """
    token = padding_token(model)
    if len(ids) == 1 and not bool(filling.any()):
        yield ids
    elif token is not None:
        yield ids.masked_fill(filling, token) if token >= 0 else ids
    else:
        token = _unused(ids[~filling].tolist())
        lacking = [c for c in _configs(model) if getattr(c, "pad_token_id", 0) is None]
        try:
            for config in lacking:
                config.pad_token_id = token
            yield ids.masked_fill(filling, token)
        finally:
            for config in lacking:
                config.pad_token_id = None


def filling_of(
    ids: Int[Tensor, "texts text"], lengths: Sequence[int] | None
) -> Bool[Tensor, "texts text"]:
    """Where texts of these lengths are filled up; nowhere without lengths."""
    ends = [ids.shape[1]] * len(ids) if lengths is None else list(lengths)
    return torch.arange(ids.shape[1]) >= torch.tensor(ends)[:, None]


def _unused(tokens: Sequence[int]) -> int:
    """The smallest id that is not among some."""
    used = set(tokens)
    return next(token for token in range(len(used) + 1) if token not in used)


def _configs(model: nn.Module) -> list[Any]:
    """The configuration of a model, and that of its text part."""
    config = getattr(model, "config", None)
    chosen = getattr(config, "get_text_config", None)
    inner = [] if chosen is None else [chosen(), chosen(decoder=True)]
    return list({id(item): item for item in (config, *inner) if item}.values())
