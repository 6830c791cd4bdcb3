"""Rows: which target is explained at which position, and the tokens that takes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..errors import ArgumentError, TargetError
from ..records import Target
from ..trace import Trace
from .scalar import Scalar

Explained = Target | Scalar
Targets = Explained | Sequence[Explained] | Iterable[tuple[int, Explained]] | None
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
        against: Which slots it is contrasted with.
        scalars: The user's scalar of each row that explains one.
    """

    targets: tuple[Target, ...]
    place: Int[Tensor, " rows"]
    tokens: Int[Tensor, "positions slots"]
    chosen: Bool[Tensor, "rows slots"]
    against: Bool[Tensor, "rows slots"]
    scalars: tuple[Scalar | None, ...]

    def split(self, step: int) -> Iterator[tuple[slice, slice, "Rows"]]:
        """So many rows at a time.

        Returns:
            Which rows they are, the rows of the trace that they read, and the same rows
            for a trace of those alone.
        """
        for first in range(0, len(self.targets), step):
            own = slice(first, first + step)
            place = self.place[own]
            read = slice(int(place.min()), int(place.max()) + 1)
            yield (
                own,
                read,
                Rows(
                    self.targets[own],
                    place - read.start,
                    self.tokens[read],
                    self.chosen[own],
                    self.against[own],
                    self.scalars[own],
                ),
            )


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
    scalars = tuple(t if isinstance(t, Scalar) else None for _, t in pairs)
    named = [(row, t.target if isinstance(t, Scalar) else t) for row, t in pairs]
    wanted: list[list[int]] = [[] for _ in trace.positions]
    for row, target in named:
        _check_target(target, trace)
        tokens = (*target.ids, *target.against)
        wanted[row] += [token for token in tokens if token not in wanted[row]]
    slots = max(1, *(len(tokens) for tokens in wanted))
    table = torch.tensor([tokens + [-1] * (slots - len(tokens)) for tokens in wanted])
    chosen, against = (torch.zeros(len(pairs), slots, dtype=torch.bool) for _ in "ab")
    for index, (row, target) in enumerate(named):
        chosen[index, [wanted[row].index(token) for token in target.ids]] = True
        against[index, [wanted[row].index(token) for token in target.against]] = True
    device = trace.states.device
    return Rows(
        tuple(target for _, target in named),
        torch.tensor([row for row, _ in pairs], device=device),
        table.to(device),
        chosen.to(device),
        against.to(device),
        scalars,
    )


def against_best_rival(
    trace: Trace, targets: Target | Sequence[Target] | None = None
) -> list[tuple[int, Target]]:
    """Each target against the most probable token besides it, per position.

    Rivals are taken from the model's own output, or the readout of the last states
    where that is not known; of equal ones the lowest id.

    Args:
        trace: The states.
        targets: Tokens or sets; None for the tokens the text itself has.

    Returns:
        (position, contrast) pairs for `attribute`.

    Raises:
        ArgumentError: If a target is no token or set.
    """
    found = []
    for row, target in _pairs(trace, targets):
        assert isinstance(target, Target)  # nothing else was let in
        if target.kind not in ("token", "set"):
            raise ArgumentError(
                f"{target.name!r} has no rival: only a token or a set of tokens has."
            )
        _check_target(target, trace)
        logits = _own_logits(trace, row)
        if len(target.ids) == len(logits):
            raise TargetError(f"{target.text!r} has no rival: there is nothing else.")
        others = logits.float().index_fill(
            0, torch.tensor(target.ids, device=logits.device), -torch.inf
        )
        best = int((others == others.max()).nonzero()[0])
        rival = Target((best,), trace.decode(best))
        found.append((int(trace.positions[row]), target.versus(rival)))
    return found


def against(
    trace: Trace, rival: Target, targets: Target | Sequence[Target] | None = None
) -> list[tuple[int, Target]]:
    """Each target against one rival; see `against_best_rival`."""
    return [
        (int(trace.positions[row]), target.versus(rival))
        for row, target in _pairs(trace, targets)
        if isinstance(target, Target)
    ]


def _pairs(trace: Trace, targets: Targets) -> list[tuple[int, Explained]]:
    """(row of the trace, target) for every row."""
    n_rows = len(trace.positions)
    if targets is None:
        return [(row, _own_token(trace, row)) for row in range(n_rows)]
    if isinstance(targets, Target | Scalar):
        return [(row, targets) for row in range(n_rows)]
    pairs: list[tuple[int, Explained]] = []
    for item in targets:
        if isinstance(item, Target | Scalar):
            pairs += [(row, item) for row in range(n_rows)]
        else:
            pairs.append((trace.row_of(item[0]), item[1]))
    return sorted(pairs, key=lambda pair: pair[0])


def _own_token(trace: Trace, row: int) -> Target:
    """The token that follows in the text, or the label that is most probable."""
    if trace.labels is not None:
        best = int(_own_logits(trace, row).argmax())
        return Target((best,), trace.decode(best))
    position = int(trace.positions[row])
    if position >= len(trace.token_ids):
        raise TargetError(
            f"The text ends before position {position}: pass `targets`, since there "
            "is no token to explain."
        )
    return Target((int(trace.token_ids[position]),), trace.token_texts[position])


def _own_logits(trace: Trace, row: int) -> Float[Tensor, " vocab"]:
    """The model's own logits, or those of the last state where they are not known."""
    if trace.logits is None:
        return trace.readout.logits(trace.states[-1, [row]])[0]
    return trace.logits[row]


def _check_target(target: Target, trace: Trace) -> None:
    """Refuse ids outside the vocabulary, and scalars of a distribution without one."""
    vocab_size = trace.readout.vocab_size
    if target.kind in ("entropy", "kl") and trace.measure == "logit":
        raise TargetError(
            f"{target.text!r} is of a distribution, and these logits have none."
        )
    tokens = (*target.ids, *target.against)
    if bad := [token for token in tokens if not 0 <= token < vocab_size]:
        raise TargetError(
            f"`targets` names token ids {bad}; this model has logits for "
            f"[0, {vocab_size})."
        )
