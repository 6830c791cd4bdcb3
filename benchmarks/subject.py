"""A model, its text, and what is done with both."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

import iglens
from iglens import Observed
from iglens.attribution.path import make_path
from iglens.attribution.reading import read_paths
from iglens.attribution.rows import resolve_rows
from iglens.readout import MEMORY_BUDGET
from iglens.trace import Trace

from .product import bare_product, best_blocking, rows_per_turn
from .text import text_ids

PRUNED = 2.0**-24
"""Tolerance on a probability with which rows may be finished early."""

PRUNES = "tolerance" in inspect.signature(read_paths).parameters


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

    @property
    def at_once(self) -> int:
        """Tokens whose map takes one turn."""
        head = self.decoder.readout
        n_points = self.decoder.n_layers + 1
        return rows_per_turn(n_points, head.d_model, head.vocab_size)

    @cached_property
    def weight(self) -> Tensor:
        """The unembedding, vocab x d_model."""
        return self.model.lm_head.weight.detach()

    def trace(self, n_tokens: int, rows: slice | None = None) -> Trace:
        """Of the first tokens of the text, all predicted or some of them."""
        positions = range(1, n_tokens + 1)[rows or slice(None)]
        return self.decoder.trace(self.ids[: n_tokens + 1], positions)

    @torch.no_grad()
    def normed(self, trace: Trace) -> Tensor:
        """What the bare product starts from: all states after the final norm."""
        normed: Tensor = self.model.model.norm(trace.states.flatten(0, 1))
        return normed

    @cached_property
    def blocking(self) -> tuple[int, int]:
        """The fastest for a text of fifty tokens, or for all of a shorter one."""
        trace = self.trace(min(50, len(self.ids) - 1))
        with torch.no_grad():
            return best_blocking(self.normed(trace), self.weight, self.blockings)

    def product(self, trace: Trace) -> Callable[[], None]:
        """The floor for a trace."""
        normed, weight, blocking = self.normed(trace), self.weight, self.blocking

        @torch.no_grad()
        def run() -> None:
            bare_product(normed, weight, blocking)

        return run


def readout_of(
    trace: Trace, *, pruned: bool = False, parted: bool = False
) -> Callable[[], object]:
    """The readout alone: every level of every token and layer.

    Args:
        trace: The states.
        pruned: Whether rows may be finished early.
        parted: Whether the path stops between the parts of blocks.
    """
    path = make_path(trace, None, "embedding", parted=parted)
    rows = resolve_rows(trace, None)
    further = {"tolerance": PRUNED if pruned else 0.0} if PRUNES else {}
    return lambda: read_paths(
        path,
        rows,
        trace.readout,
        "probability",
        Observed(),
        diagnostics=False,
        memory_budget=MEMORY_BUDGET,
        **further,
    )


def map_of(trace: Trace, *, pruned: bool = False) -> iglens.Attribution:
    """The whole result: readout, fidelity check and record."""
    further: dict[str, Any] = {"tolerance": PRUNED if pruned else 0.0} if PRUNES else {}
    return iglens.attribute(trace, diagnostics=False, **further)
