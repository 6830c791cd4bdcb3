"""Products with a transpose, held against the matrix itself."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from iglens.model.inside.transposed import linear_map

WIDTH, D_MODEL, ROWS = 48, 32, 7


def seeded(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def linear(width=WIDTH, d_model=D_MODEL):
    module = nn.Linear(width, d_model)
    module.weight.data, module.bias.data = seeded(d_model, width), seeded(d_model)
    return module


def convolution(width=WIDTH, d_model=D_MODEL):
    module = Conv1D(d_model, width)
    module.weight.data, module.bias.data = seeded(width, d_model), seeded(d_model)
    return module


class Adapted(nn.Module):
    """Two low-rank factors beside a matrix whose `weight` it passes on as its own."""

    def __init__(self):
        super().__init__()
        self.base = linear()
        self.a, self.b = nn.Linear(WIDTH, 2), nn.Linear(2, D_MODEL, bias=False)
        nn.init.zeros_(self.a.bias)

    @property
    def weight(self):
        return self.base.weight

    def forward(self, x):
        return self.base(x) + self.b(self.a(x))


class Opaque(nn.Module):
    """A linear map that cannot be differentiated, and has no weight to read."""

    def __init__(self):
        super().__init__()
        self.inner = linear()

    def forward(self, x):
        return self.inner(x.detach()).detach()


MODULES = {
    "linear": linear,
    "square": lambda: linear(D_MODEL),
    "Conv1D": convolution,
    "square Conv1D": lambda: convolution(D_MODEL),
    "adapted": Adapted,
    "opaque": Opaque,
}


@torch.no_grad()
def found_for(module, dtype, width=WIDTH):
    module = module.to(dtype)
    taken = seeded(ROWS, width, seed=3).to(dtype)
    return linear_map(module, taken, module(taken)), taken


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MODULES)
@torch.no_grad()
def test_a_product_with_the_transpose_is_that_of_the_matrix(name, dtype):
    module = MODULES[name]()
    width = D_MODEL if "square" in name else WIDTH
    (transposed, bias), _ = found_for(module, dtype, width)
    zero = module(torch.zeros(1, width, dtype=dtype))
    matrix = (module(torch.eye(width, dtype=dtype)) - zero).double().T
    assert torch.equal(bias, zero[0].double())
    vectors = seeded(3, D_MODEL, seed=5).double()
    within = 16 * torch.finfo(dtype).eps
    torch.testing.assert_close(
        transposed(vectors), vectors @ matrix, rtol=0, atol=within * 30
    )
    assert transposed(vectors).dtype == torch.float64


def test_the_weight_itself_is_used_where_there_is_one():
    ways = {}
    for name in MODULES:
        width = D_MODEL if "square" in name else WIDTH
        (transposed, _), _ = found_for(MODULES[name](), torch.float32, width)
        ways[name] = type(transposed).__name__
    assert ways == {
        "linear": "_Matrix",
        "square": "_Matrix",
        "Conv1D": "_Matrix",
        "square Conv1D": "_Matrix",
        "adapted": "_Derivative",
        "opaque": "_Probed",
    }


def test_half_precision_is_widened_in_blocks(monkeypatch):
    module = linear().bfloat16()
    (whole, _), taken = found_for(module, torch.bfloat16)
    vectors = seeded(3, D_MODEL).double()
    before = whole(vectors)
    monkeypatch.setattr("iglens.model.inside.transposed._BLOCK", 5 * WIDTH)
    torch.testing.assert_close(whole(vectors), before, rtol=1e-5, atol=1e-5)
    assert taken.dtype == torch.bfloat16


class Cube(nn.Linear):
    """Not linear."""

    def forward(self, x):
        return super().forward(x) + 0.1 * super().forward(x) ** 3


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_what_is_not_linear_is_refused(dtype):
    module = Cube(WIDTH, D_MODEL)
    module.weight.data = seeded(D_MODEL, WIDTH)
    found, _ = found_for(module, dtype)
    assert "no matrix" in found


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("d_model", [32, 2048])
@torch.no_grad()
def test_another_matrix_does_not_fit(dtype, d_model):
    """The check has power at real widths: one column of 64 that is another is seen."""
    module = linear(64, d_model).to(dtype)
    taken = seeded(ROWS, 64, seed=3).to(dtype)
    given = module(taken)
    assert not isinstance(linear_map(module, taken, given), str)
    module.weight[:, 5] *= -1
    assert "no matrix" in linear_map(module, taken, given)


def test_a_module_that_cannot_be_called_alone_is_refused():
    class Stateful(nn.Linear):
        def forward(self, x):
            if len(x) == 1:
                raise RuntimeError("needs all rows")
            return super().forward(x)

    found, _ = found_for(Stateful(WIDTH, D_MODEL), torch.float32)
    assert "cannot be called alone (RuntimeError)" in found


def test_quantised_weights_are_multiplied_with():
    quantization = pytest.importorskip("torchao.quantization")
    module = nn.Sequential(linear())
    quantization.quantize_(module, quantization.Int8WeightOnlyConfig())
    (transposed, _), _ = found_for(module[0], torch.float32)
    vectors = seeded(3, D_MODEL).double()
    matrix = module[0].weight.dequantize().double()
    torch.testing.assert_close(
        transposed(vectors), vectors @ matrix, rtol=1e-5, atol=1e-5
    )
