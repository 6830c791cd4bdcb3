"""Products with the transpose of what a linear module multiplies with."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..calls import evaluating

Transposed = Callable[[Tensor], Tensor]
"""`W^T v` of vectors (rows, d_model), as float64 (rows, width)."""

_BLOCK = 2**22
"""Entries of a matrix in half precision that are widened together."""

_PROBES = 512
"""Numbers that are probed together."""


def linear_map(
    module: nn.Module,
    taken: Float[Tensor, "rows width"],
    given: Float[Tensor, "rows d_model"],
) -> tuple[Transposed, Float[Tensor, " d_model"]] | str:
    """`W^T v` and `b` of a module that maps `x` to `W x + b`.

    Read from its own weight where that is a plain matrix, in either orientation; from
    its derivative elsewhere (adapters, quantised layers), and by probing where it has
    none. Believed only if it fits what the module made in the forward pass.

    Args:
        module: The module.
        taken: What it took in the forward pass.
        given: What it gave for that.

    Returns:
        Both, or why they are not known.
    """
    try:
        with evaluating(module):
            bias = module(taken.new_zeros(1, taken.shape[1]))[0].double()
    except (RuntimeError, TypeError, ValueError) as error:
        return f"its writer cannot be called alone ({type(error).__name__})"
    for transposed in _ways(module, taken, given):
        try:
            if _fits(transposed, bias, taken, given):
                return transposed, bias
        except (RuntimeError, TypeError, NotImplementedError):
            continue
    return "what its writer gives is no matrix times what it takes"


def _ways(module: nn.Module, taken: Tensor, given: Tensor) -> Iterator[Transposed]:
    """Ways to multiply, the cheapest first."""
    weight, shape = _plain_weight(module), (given.shape[1], taken.shape[1])
    for matrix in () if weight is None else (weight, weight.T):
        if matrix.shape == shape:
            yield _Matrix(matrix)
    yield _Derivative(module, taken)
    yield _Probed(module, taken)


def _plain_weight(module: nn.Module) -> Tensor | None:
    """A module's own weight, if it is a matrix of numbers that are there."""
    weight = getattr(module, "weight", None)
    if type(weight) not in (Tensor, nn.Parameter) or "forward" in module.__dict__:
        return None
    assert isinstance(weight, Tensor)
    plain = weight.dim() == 2 and weight.is_floating_point()
    return weight.detach() if plain and weight.device.type != "meta" else None


class _Matrix:
    """`W^T v` of a matrix; half precision is widened block by block."""

    def __init__(self, matrix: Float[Tensor, "d_model width"]) -> None:
        """Take the weight itself, without a copy."""
        self._matrix = matrix

    def __call__(self, vectors: Tensor) -> Tensor:
        """The product, in float32 at least."""
        matrix = self._matrix
        wide = torch.promote_types(matrix.dtype, torch.float32)
        given = vectors.to(matrix.device, wide)
        if matrix.dtype == wide:
            found = given @ matrix
        else:
            rows = max(1, _BLOCK // matrix.shape[1])
            pairs = zip(given.split(rows, 1), matrix.split(rows), strict=True)
            found = sum(
                (some @ block.to(wide) for some, block in pairs),
                given.new_zeros(len(given), matrix.shape[1]),
            )
        return found.to(vectors.device, torch.float64)


class _Derivative:
    """`W^T v` as the module's own derivative."""

    def __init__(self, module: nn.Module, like: Tensor) -> None:
        """Take the module and a tensor as it takes."""
        self._module = module
        self._like = like[:0]

    def __call__(self, vectors: Tensor) -> Tensor:
        """Reverse-mode differentiation, in the module's own precision."""
        zeros = self._like.new_zeros(len(vectors), self._like.shape[1])
        with evaluating(self._module), torch.enable_grad():
            given = self._module(zeros.requires_grad_())
            (found,) = torch.autograd.grad(given, zeros, vectors.to(given))
        return found.to(vectors.device, torch.float64)


class _Probed:
    """`W^T v` from what the module gives for every single number it takes."""

    def __init__(self, module: nn.Module, like: Tensor) -> None:
        """Take the module and a tensor as it takes."""
        self._module = module
        self._like = like[:0]

    @torch.no_grad()
    def __call__(self, vectors: Tensor) -> Tensor:
        """Block by block; as much work as running that many tokens."""
        width = self._like.shape[1]
        pieces = []
        with evaluating(self._module):
            bias = self._module(self._like.new_zeros(1, width)).double()
            for numbers in torch.arange(width).split(_PROBES):
                single = self._like.new_zeros(len(numbers), width)
                single[torch.arange(len(numbers)), numbers] = 1.0
                columns = self._module(single).double() - bias
                pieces.append(vectors.to(columns) @ columns.T)
        return torch.cat(pieces, 1).to(vectors.device)


def _fits(transposed: Transposed, bias: Tensor, taken: Tensor, given: Tensor) -> bool:
    """Whether `<v, W x + b>` is `<v, y>` for a random `v` and every row."""
    seeded = torch.Generator().manual_seed(0)  # of the CPU: other devices lack one
    vector = torch.randn(1, given.shape[1], generator=seeded).to(given.device).double()
    pulled = transposed(vector)[0]
    wide, expected = taken.double(), given.double() - bias
    missed = expected @ vector[0] - wide @ pulled
    # rounding is random, so it adds up as `<v, y>` itself does
    size = (
        _length(given) + _length(bias) + _length(wide) * pulled.square().mean().sqrt()
    )
    steps = 8 if given.dtype.itemsize < 4 else 64
    return bool((missed.abs() <= steps * torch.finfo(given.dtype).eps * size).all())


def _length(vectors: Tensor) -> Tensor:
    """Euclidean length of every vector."""
    return torch.linalg.vector_norm(vectors.double(), dim=-1)
