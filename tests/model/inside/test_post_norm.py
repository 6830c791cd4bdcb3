"""Post-norms, frozen at what they took."""

import pytest
import torch
from torch import nn

from iglens.model.inside.post_norm import frozen_norm

TAKEN = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
CPU = torch.device("cpu")


def norm(kind, dtype):
    module = kind(8)
    for weight in module.parameters():
        weight.data = torch.rand(8, generator=torch.Generator().manual_seed(1)) + 0.5
    return module.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [nn.RMSNorm, nn.LayerNorm])
def test_where_it_is_frozen_it_gives_what_the_norm_gives(kind, dtype):
    module, taken = norm(kind, dtype), TAKEN.to(dtype)
    found = frozen_norm(module, taken, CPU)
    expected = norm(kind, torch.float64)
    for weight, own in zip(expected.parameters(), module.parameters(), strict=True):
        weight.data = own.double()
    torch.testing.assert_close(
        found(taken), expected(taken.double()), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("kind", [nn.RMSNorm, nn.LayerNorm])
def test_it_is_affine_and_its_transpose_is_that(kind):
    found = frozen_norm(norm(kind, torch.float64), TAKEN.double(), CPU)
    one, other = TAKEN.double().roll(1, 0), TAKEN.double().flip(0)
    zero = found(torch.zeros_like(one))
    torch.testing.assert_close(
        found(one + 2 * other) - zero, found(one) - zero + 2 * (found(other) - zero)
    )
    torch.testing.assert_close(
        (found.pull(other) * one).sum(1), (other * (found(one) - zero)).sum(1)
    )


class Shifted(nn.Module):
    """Not of the form."""

    def forward(self, vectors):
        return torch.tanh(vectors)


class Needy(nn.Module):
    """Takes more than a vector."""

    def forward(self, vectors, more):
        return vectors * more


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Shifted(), "no linear map over a scale"),
        (nn.Linear(8, 4), "no linear map over a scale"),
        (Needy(), "cannot be called alone (TypeError)"),
    ],
)
def test_what_is_no_such_norm_is_refused(module, reason):
    assert reason in frozen_norm(module, TAKEN, CPU)
