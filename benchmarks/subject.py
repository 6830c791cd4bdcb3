"""A model, its text, and what is done with both."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

import iglens
from iglens import Observed
from iglens.attribution.path import make_path
from iglens.attribution.reading import read_paths
from iglens.attribution.rows import resolve_rows
from iglens.readout import MEMORY_BUDGET
from iglens.readout.product import product as chosen
from iglens.trace import Trace

from .product import Multiply, bare_product, best_blocking, by_torch, rows_per_turn
from .text import text_ids

TORCH, CHOSEN = "product", "chosen product"
"""Names of the floors: by torch's `mm`, and by what our readout chose here."""

PRODUCTS: dict[str, Multiply] = {TORCH: by_torch, CHOSEN: chosen}


@dataclass(frozen=True, eq=False)
class Subject:
    """An embedded model, and a text.

    Attributes:
        name: Which.
        decoder: The model.
        ids: Token ids of the text, one more than are explained at most.
        blockings: Of the bare product.
    """

    name: str
    decoder: iglens.Decoder
    ids: list[int]
    blockings: tuple[tuple[int, int], ...]

    @classmethod
    def load(
        cls, name: str, n_tokens: int, blockings: tuple[tuple[int, int], ...]
    ) -> "Subject":
        """By name."""
        decoder = iglens.Decoder.from_pretrained(name)
        return cls(name, decoder, text_ids(decoder, n_tokens + 1), blockings)

    @property
    def model(self) -> Any:
        """The model of Transformers."""
        return self.decoder.model

    def at_once(self, turn: float) -> int:
        """Tokens whose map takes a turn of so many operations."""
        head = self.decoder.readout
        n_points = self.decoder.n_layers + 1
        return rows_per_turn(turn, n_points, head.d_model, head.vocab_size)

    @cached_property
    def weight(self) -> Tensor:
        """The unembedding, vocab x d_model."""
        weight: Tensor = self.model.lm_head.weight.detach()
        return weight

    def trace(self, n_tokens: int) -> Trace:
        """Of the first tokens of the text, each of them predicted."""
        return self.decoder.trace(self.ids[: n_tokens + 1], range(1, n_tokens + 1))

    @torch.no_grad()
    def normed(self, trace: Trace) -> Tensor:
        """What the bare product starts from: all states after the final norm."""
        normed: Tensor = self.model.model.norm(trace.states.flatten(0, 1))
        return normed

    @cached_property
    def _blockings(self) -> dict[str, tuple[int, int]]:
        """The fastest for a text of fifty tokens, or for all of a shorter one."""
        trace = self.trace(min(50, len(self.ids) - 1))
        with torch.no_grad():
            normed = self.normed(trace)
            return {
                name: best_blocking(normed, self.weight, self.blockings, multiply)
                for name, multiply in PRODUCTS.items()
            }

    def products(self, trace: Trace) -> dict[str, Callable[[], None]]:
        """The floors for a trace."""
        normed, weight = self.normed(trace), self.weight
        return {
            name: torch.no_grad()(
                partial(bare_product, normed, weight, self._blockings[name], multiply)
            )
            for name, multiply in PRODUCTS.items()
        }

    def product(self, trace: Trace) -> Callable[[], None]:
        """The floor that neighbours are compared with, too."""
        return self.products(trace)[TORCH]


def readout_of(trace: Trace, tolerance: float) -> Callable[[], object]:
    """The readout alone: every level of every token and layer.

    Args:
        trace: The states.
        tolerance: Probability below which a point may be finished early; 0 for none.
    """
    path, rows = make_path(trace, None, "embedding"), resolve_rows(trace, None)
    return lambda: read_paths(
        path,
        rows,
        trace.readout,
        "probability",
        Observed(),
        diagnostics=False,
        tolerance=tolerance,
        memory_budget=MEMORY_BUDGET,
    )


def map_of(trace: Trace, tolerance: float) -> iglens.Attribution:
    """The whole result: readout, fidelity check and record."""
    return iglens.attribute(trace, diagnostics=False, tolerance=tolerance)
