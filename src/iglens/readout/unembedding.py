"""Which head is this? A hash that stays the same in every dtype that holds it."""

import hashlib

import torch
from torch import Tensor

from .abstract import AbstractReadout
from .linear import LinearReadout

_ROWS = 4096


@torch.no_grad()
def unembedding_sha256(readout: AbstractReadout) -> str | None:
    """SHA-256 over the head's numbers as little-endian float32.

    The weight row by row (one row per token), then the bias if there is one. Weights
    that are stored in 16 bits give the same hash when they are loaded in 32. None if
    the readout is called, not read (a quantised or adapted head): what it computes is
    rounded differently on every machine.
    """
    if not isinstance(readout, LinearReadout):
        return None
    weight, bias = readout.weights()
    digest = hashlib.sha256()
    for start in range(0, len(weight), _ROWS):
        digest.update(_bytes(weight[start : start + _ROWS]))
    if bias is not None:
        digest.update(_bytes(bias))
    return digest.hexdigest()


def _bytes(values: Tensor) -> bytes:
    """Numbers in float32, lowest byte first on every machine."""
    array = values.to("cpu", torch.float32).contiguous().numpy()
    return array.astype("<f4", copy=False).tobytes()
