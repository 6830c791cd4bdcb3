"""The floor: every logit once, in blocks, and thrown away."""

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

BLOCKINGS = (
    (512, 2048),
    (1024, 2048),
    (2048, 512),
    (2048, 2048),
    (2048, 8192),
    (8192, 2048),
)
"""Rows and columns per block; the fastest counts."""

Multiply = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`states @ weight.T`, perhaps in the third."""


def by_torch(states: Tensor, weight: Tensor, out: Tensor) -> Tensor:
    """What every tool computes with."""
    return torch.mm(states, weight.T, out=out)


def bare_product(
    normed: Tensor,
    weight: Tensor,
    blocking: tuple[int, int],
    multiply: Multiply = by_torch,
) -> None:
    """Every logit once, thrown away: what a readout of whole rows at least computes.

    Args:
        normed: States after the final norm, rows x d_model.
        weight: The unembedding, vocab x d_model.
        blocking: Rows and columns per block.
        multiply: How a block is multiplied.
    """
    rows, columns = blocking
    buffer = torch.empty(rows * columns)
    for start in range(0, len(normed), rows):
        part = normed[start : start + rows]
        for column in range(0, len(weight), columns):
            block = weight[column : column + columns]
            out = buffer[: len(part) * len(block)].view(len(part), len(block))
            multiply(part, block, out)


def best_blocking(
    normed: Tensor,
    weight: Tensor,
    blockings: Sequence[tuple[int, int]] = BLOCKINGS,
    multiply: Multiply = by_torch,
) -> tuple[int, int]:
    """The fastest of some blockings, each run twice."""
    found: dict[tuple[int, int], float] = {}
    for _ in range(2):
        for blocking in blockings:
            start = time.perf_counter()
            bare_product(normed, weight, blocking, multiply)
            passed = time.perf_counter() - start
            found[blocking] = min(passed, found.get(blocking, passed))
    return min(found, key=lambda blocking: found[blocking])


def rows_per_turn(turn: float, n_points: int, d_model: int, vocab_size: int) -> int:
    """Tokens whose product at all points has as many operations as a turn."""
    return max(1, int(turn // (2 * n_points * d_model * vocab_size)))


def slices(n_tokens: int, at_once: int, count: int) -> list[slice]:
    """Evenly spaced stretches of a text, as many as there are rounds.

    Example:
        >>> slices(500, 200, 3)
        [slice(0, 200, None), slice(150, 350, None), slice(300, 500, None)]
        >>> slices(50, 200, 2)
        [slice(0, 50, None), slice(0, 50, None)]
    """
    size = min(n_tokens, at_once)
    room = n_tokens - size
    starts = [room * at // max(1, count - 1) for at in range(count)]
    return [slice(start, start + size) for start in starts]
