"""A trace: the residual states of one text at the positions that matter.

Axis legend as in `iglens.readout.abstract`; here a *row* is a position.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .errors import ArgumentError
from .inside.parted import Parted
from .readout.abstract import AbstractReadout
from .readout.fidelity import NoiseFloor, Tolerance
from .readout.measure import Measure
from .records import Provenance


@dataclass(frozen=True, eq=False)
class Trace:
    """Residual states on the path, and what the model itself said.

    Everything attribution needs: reuse it across targets, baselines, units and
    estimators without running the model again.

    Attributes:
        token_ids: Every token of the text.
        token_texts: The same tokens, decoded one by one.
        positions: Index of the predicted token of every row, ascending; the state
            is that of the token before. May equal the length of the text.
        layers: Layer every point is the state of: 0 (the embedding) to the last.
        states: The states as the model produced them; the last is the output of the
            last block, *before* the final norm.
        causal_mean: Mean of the embedding states up to each predicting token.
        text_mean: Mean state over all tokens of the text, per point.
        logits: The model's own logits of every row; None if they are not known.
        readout: The model's head.
        noise: How much of the model's output is rounding.
        tolerance: How far reading the last state may be off.
        power: Tolerances by which a wrong state missed when the model was verified.
        modules: Names of the blocks, block 1 first.
        decode: Text of a token id.
        provenance: Where this comes from.
        warnings: Sentences a reader must see.
        measure: What the readout is judged by: distributions, or the logits themselves
            where they are not of one distribution.
        labels: Names of what the logits stand for, if it is no tokens.
        inside: What lies inside blocks, by layer, if it was asked for.
        whole: Why the other blocks could not be taken apart, by layer.
    """

    token_ids: Int[Tensor, " text"]
    token_texts: tuple[str, ...]
    positions: Int[Tensor, " rows"]
    layers: tuple[int, ...]
    states: Float[Tensor, "points rows d_model"]
    causal_mean: Float[Tensor, "rows d_model"]
    text_mean: Float[Tensor, "points d_model"]
    logits: Float[Tensor, "rows vocab"] | None
    readout: AbstractReadout
    noise: NoiseFloor
    tolerance: Tolerance
    power: float
    modules: tuple[str, ...]
    decode: Callable[[int], str]
    provenance: Provenance
    warnings: tuple[str, ...] = ()
    measure: Measure = "total_variation"
    labels: tuple[str, ...] | None = None
    inside: Mapping[int, Parted] = field(default_factory=dict)
    whole: Mapping[int, str] = field(default_factory=dict)

    @property
    def n_layers(self) -> int:
        """Number of blocks; the last point is the output of block `n_layers`."""
        return self.layers[-1]

    def with_states(
        self,
        states: Float[Tensor, "points rows d_model"],
        logits: Float[Tensor, "rows vocab"] | None = None,
    ) -> "Trace":
        """The same trace with other states: patched, or from another library.

        The mean baselines stay those of the original states; nothing is known of what
        lies inside blocks any more.

        Args:
            states: In the order of `layers`, the last one before the final norm.
            logits: The logits of the run these states are from; without them nothing
                can be verified, and strict attribution refuses.

        Raises:
            ArgumentError: If the shapes are not those of this trace.
        """
        if states.shape != self.states.shape:
            raise ArgumentError(
                f"`states` has shape {tuple(states.shape)}, this trace needs "
                f"{tuple(self.states.shape)} (points, positions, d_model)."
            )
        expected = (len(self.positions), self.readout.vocab_size)
        if logits is not None and tuple(logits.shape) != expected:
            raise ArgumentError(
                f"`logits` has shape {tuple(logits.shape)}, this trace needs "
                f"{expected} (positions, vocab)."
            )
        return replace(self, states=states, logits=logits, inside={}, whole={})

    def with_precision(self, precision: torch.dtype) -> "Trace":
        """The same trace, read at another precision."""
        return replace(self, readout=self.readout.with_precision(precision))

    def at(self, rows: slice) -> "Trace":
        """The same at some of the positions, counted by row."""
        return replace(
            self,
            positions=self.positions[rows],
            states=self.states[:, rows],
            causal_mean=self.causal_mean[rows],
            logits=None if self.logits is None else self.logits[rows],
            inside={layer: parts.at(rows) for layer, parts in self.inside.items()},
        )

    def row_of(self, position: int) -> int:
        """Row of a position.

        Raises:
            ArgumentError: If the position was not traced.
        """
        found = torch.nonzero(self.positions == position).flatten()
        if not len(found):
            raise ArgumentError(
                f"Position {position} was not traced; this trace has "
                f"{self.positions.tolist()}."
            )
        return int(found[0])
