"""Rows: which target is explained at which position, and the tokens that takes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..errors import ArgumentError, TargetError
from ..records import Target
from ..trace import Trace

Targets = Target | Sequence[Target] | Iterable[tuple[int, Target]] | None
"""One target for all positions, several for each, explicit (position, target) pairs,
or None for the tokens the text itself has there."""


@dataclass(frozen=True, eq=False)
class Rows:
    """The explained pairs, and one table of wanted tokens per position.

    Several targets of one position share its states: they are read once.

    Attributes:
        targets: What is explained, one per row.
        place: Row of the trace that each row reads.
        tokens: Distinct tokens wanted at each row of the trace, -1 for unused slots.
        chosen: Which slots make up each row's target.
    """

    targets: tuple[Target, ...]
    place: Int[Tensor, " rows"]
    tokens: Int[Tensor, "positions slots"]
    chosen: Bool[Tensor, "rows slots"]


def resolve_rows(trace: Trace, targets: Targets) -> Rows:
    """Pair positions with targets.

    Raises:
        TargetError: If a target is outside the vocabulary, or the text has no token
            at a position and none was given.
        ArgumentError: If a position was not traced, or nothing is to be explained.
    """
    pairs = _pairs(trace, targets)
    if not pairs:
        raise ArgumentError("Nothing to explain: no position was chosen.")
    wanted: list[list[int]] = [[] for _ in trace.positions]
    for row, target in pairs:
        _check_target(target, trace.readout.vocab_size)
        wanted[row] += [token for token in target.ids if token not in wanted[row]]
    slots = max(len(tokens) for tokens in wanted)
    table = torch.tensor([tokens + [-1] * (slots - len(tokens)) for tokens in wanted])
    chosen = torch.zeros(len(pairs), slots, dtype=torch.bool)
    for index, (row, target) in enumerate(pairs):
        chosen[index, [wanted[row].index(token) for token in target.ids]] = True
    device = trace.states.device
    return Rows(
        tuple(target for _, target in pairs),
        torch.tensor([row for row, _ in pairs], device=device),
        table.to(device),
        chosen.to(device),
    )


def _pairs(trace: Trace, targets: Targets) -> list[tuple[int, Target]]:
    """(row of the trace, target) for every row."""
    n_rows = len(trace.positions)
    if targets is None:
        return [(row, _own_token(trace, row)) for row in range(n_rows)]
    if isinstance(targets, Target):
        return [(row, targets) for row in range(n_rows)]
    pairs: list[tuple[int, Target]] = []
    for item in targets:
        if isinstance(item, Target):
            pairs += [(row, item) for row in range(n_rows)]
        else:
            pairs.append((trace.row_of(item[0]), item[1]))
    return sorted(pairs, key=lambda pair: pair[0])


def _own_token(trace: Trace, row: int) -> Target:
    """The token that follows in the text."""
    position = int(trace.positions[row])
    if position >= len(trace.token_ids):
        raise TargetError(
            f"The text ends before position {position}: pass `targets`, since there "
            "is no token to explain."
        )
    return Target((int(trace.token_ids[position]),), trace.token_texts[position])


def _check_target(target: Target, vocab_size: int) -> None:
    """Refuse ids outside the vocabulary."""
    if bad := [token for token in target.ids if not 0 <= token < vocab_size]:
        raise TargetError(
            f"`targets` names token ids {bad}; this model has logits for "
            f"[0, {vocab_size})."
        )
