"""Vectors sent through the unembedding and back, in blocks of the vocabulary."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...readout import LinearReadout

COLUMNS = 8192
"""Tokens per block: enough for the matrix product, few enough to stay in cache."""


@dataclass(frozen=True, eq=False)
class Unembedding:
    """A head's matrix, read in blocks and converted block by block.

    Attributes:
        readout: The head.
        memory_budget: Bytes that a block's converted weights may take.
    """

    readout: LinearReadout
    memory_budget: int

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Columns of the vocabulary, and their weights in the readout's precision."""
        weight, precision = self.readout.weights()[0], self.readout.precision
        width = COLUMNS
        if weight.dtype != precision:
            row = weight.shape[1] * precision.itemsize
            width = max(64, min(width, self.memory_budget // row))
        for start in range(0, len(weight), width):
            columns = slice(start, min(start + width, len(weight)))
            yield columns, weight[columns].to(precision)

    def out(self, normed: Float[Tensor, "rows d_head"]) -> Float[Tensor, "rows vocab"]:
        """`W x`, without a bias."""
        given = normed.to(self.readout.precision)
        found = given.new_empty(len(given), self.readout.vocab_size)
        for columns, weight in self._blocks():
            found[:, columns] = given @ weight.T
        return found

    def out_at(
        self,
        normed: Float[Tensor, "segments rows d_head"],
        tokens: Int[Tensor, "segments slots"],
    ) -> Float[Tensor, "segments rows slots"]:
        """The same for single tokens, in float64; ids below 0 give anything."""
        weight = self.readout.weights()[0]
        picked = [
            (normed * weight[column].double()[:, None]).sum(-1)
            for column in tokens.clamp(min=0).T
        ]
        return torch.stack(picked, -1)

    def bias_at(
        self, tokens: Int[Tensor, "segments slots"]
    ) -> Float[Tensor, "segments slots"]:
        """The bias of single tokens, in float64."""
        bias = self.readout.weights()[1]
        if bias is None:
            return torch.zeros(tokens.shape, dtype=torch.float64, device=tokens.device)
        return bias[tokens.clamp(min=0)].double()

    def back(self, logits: Float[Tensor, "rows vocab"]) -> Float[Tensor, "rows d_head"]:
        """`W^T s`, blocks added up in float64."""
        weight = self.readout.weights()[0]
        found = logits.new_zeros(len(logits), weight.shape[1], dtype=torch.float64)
        for columns, block in self._blocks():
            found += (logits[:, columns] @ block).double()
        return found

    def back_at(
        self,
        slots: Float[Tensor, "segments rows slots"],
        tokens: Int[Tensor, "segments slots"],
    ) -> Float[Tensor, "segments rows d_head"]:
        """The same from single tokens, in float64; ids below 0 must have weight 0."""
        weight = self.readout.weights()[0]
        parts = [
            slots[:, :, slot, None] * weight[column].double()[:, None]
            for slot, column in enumerate(tokens.clamp(min=0).T)
        ]
        return torch.stack(parts).sum(0)
