"""Two equal runs must agree, up to what any kernel's rounding is."""

import pytest
import torch
from families import Handmade

from iglens import Decoder, UnsupportedModelError, explain

EVERY = {"positions": "all", "max_new_tokens": 0}


class Shaky(Handmade):
    """The order of some sum changes from run to run."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, input_ids):
        logits = super().forward(input_ids)
        return logits * (1 + self.size * torch.randn(()))


@pytest.mark.parametrize("size", [1e-3, 0.1, 10.0])
def test_runs_that_differ_by_more_than_rounding_are_refused(size):
    torch.manual_seed(0)
    with pytest.raises(UnsupportedModelError, match=r"not deterministic .* differ by"):
        Decoder(Shaky(size))


def test_runs_that_differ_by_rounding_are_taken():
    torch.manual_seed(0)
    decoder = Decoder(Shaky(1e-7))
    result = explain(decoder, [3, 17, 5, 30], **EVERY)
    assert result.fidelity.max() <= decoder.verified.tolerance.total_variation < 1e-4
