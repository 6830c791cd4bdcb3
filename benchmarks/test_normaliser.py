"""Widely spread logits must not slow the normaliser down."""

import torch
from pairs import paired

from iglens.readout.streamed import Normaliser


def test_wide_logits_cost_no_more_than_narrow_ones(benchmark):
    generator = torch.Generator().manual_seed(0)
    narrow = torch.randn(2048, 512, generator=generator)
    wide = narrow * 0.5 - 95  # under a maximum of 0: exponentials are denormal
    wide[:, 0] = 0
    tokens = torch.full((2048, 1), -1)

    def consume(logits):
        return lambda: Normaliser(tokens).consume(logits.clone(), 0)

    clamped = paired(consume(wide), consume(narrow), pairs=15)
    plain = paired(wide.exp, narrow.exp, pairs=15)
    print(f"\nnormaliser, wide against narrow logits:   {clamped}")
    print(f"a plain exp of the same:                  {plain}")
    benchmark.extra_info["ratio"] = clamped.ratio
    benchmark.pedantic(consume(wide), rounds=1)
    assert clamped.ratio < 1.5
