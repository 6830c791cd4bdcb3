"""Norms are known by what they do; each kind is built by hand."""

import pytest
import torch
from torch import nn

from iglens.examining.norm import norm_facts

WIDTH = 12


def drawn(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for weight in module.parameters():
        weight.data = 0.5 * torch.randn(weight.shape, generator=generator)
    return module


class OnePlus(nn.Module):
    """As in Gemma: a gain that is zero does nothing."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x):
        scaled = x.float() * x.float().square().mean(-1, keepdim=True).rsqrt()
        return (scaled * (1 + self.weight.float())).type_as(x)


class Centred(OnePlus):
    """A layer norm with such a gain."""

    def forward(self, x):
        return super().forward(x - x.mean(-1, keepdim=True))


class Direction(nn.Module):
    """Forgets the size, but is no gain times the normed vector."""

    def forward(self, x):
        u = x / x.norm(dim=-1, keepdim=True)
        return u * u.abs()


@pytest.mark.parametrize(
    ("module", "kind", "gain", "shift"),
    [
        (nn.LayerNorm(WIDTH), "layer", "w", True),
        (nn.LayerNorm(WIDTH, bias=False), "layer", "w", False),
        (nn.LayerNorm(WIDTH, elementwise_affine=False), "layer", "none", False),
        (nn.RMSNorm(WIDTH), "RMS", "w", False),
        (nn.RMSNorm(WIDTH, elementwise_affine=False), "RMS", "none", False),
        (OnePlus(), "RMS", "1 + w", False),
        (Centred(), "layer", "1 + w", False),
        (Direction(), "other", "other", False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_norm_is_what_it_does(module, kind, gain, shift, dtype):
    found = norm_facts("ln", drawn(module).to(dtype), torch.ones(4, 1, WIDTH))
    assert (found.kind, found.gain, found.shift) == (kind, gain, shift)
    assert found.module == "ln"
    assert found.module_class == type(module).__name__
    assert {p.dtype for p in module.parameters()} <= {dtype}


@pytest.mark.parametrize(
    "module",
    [nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3), nn.Identity(), nn.Linear(3, 3)],
    ids=["matrix", "projection", "identity", "misfit"],
)
def test_what_remembers_the_size_is_no_norm(module):
    assert norm_facts("x", drawn(module), torch.ones(4, 1, WIDTH)) is None


def test_a_gain_of_ones_is_told_by_its_weight():
    norm = nn.RMSNorm(WIDTH)
    assert norm_facts("x", norm, torch.ones(4, WIDTH)).gain == "w"


def test_a_small_shift_is_a_shift():
    norm = nn.LayerNorm(WIDTH)
    norm.bias.data.fill_(1e-4)
    assert norm_facts("x", norm, torch.ones(4, WIDTH)).shift
