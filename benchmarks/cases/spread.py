"""Widely spread logits must not slow the normaliser down."""

from collections.abc import Iterator

import torch
from torch import Tensor

from iglens.readout.streamed import Normaliser

from ..pairs import Way, in_turns
from ..results import Measurement
from ..size import Size

ROWS, COLUMNS = 2048, 512


def spread(size: Size) -> Iterator[Measurement]:
    """Logits 95 under the largest, whose exponentials are denormal, and narrow ones."""
    generator = torch.Generator().manual_seed(size.seed)
    narrow = torch.randn(ROWS, COLUMNS, generator=generator)
    wide = narrow * 0.5 - 95
    wide[:, 0] = 0
    tokens = torch.full((ROWS, 1), -1)

    def consume(logits: Tensor) -> Way:
        return lambda: Normaliser(tokens).consume(logits.clone(), 0)

    ways = {"wide logits": consume(wide), "narrow logits": consume(narrow)}
    yield Measurement.of("spread", in_turns([ways] * 15), *ways)
    plain = {"exp of wide logits": wide.exp, "exp of narrow logits": narrow.exp}
    yield Measurement.of("spread", in_turns([plain] * 15), *plain)
