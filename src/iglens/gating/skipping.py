"""Segments taken out one at a time: what the target loses."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import UnsupportedModelError
from ..model.decoder import Decoder
from ..model.intervene import At, Intervention
from ..records import Attribution
from ..records.effects import Effects, Kind
from .subject import Done, Gated, at_once


def gated_results(
    decoder: Decoder,
    gated: Intervention,
    results: Sequence[Attribution],
    *,
    at: At = "all",
    means: Float[Tensor, "columns d_model"] | None = None,
    done: Done = lambda more: None,
) -> list[Gated]:
    """Every row of some results as a function of gates.

    Args:
        decoder: The model.
        gated: The same, with gates.
        results: What the readout says, with a segment for every gate.
        at: Where gates act.
        means: What closed gates put in place of updates; None for nothing.
        done: Told of every batch that has run.

    Raises:
        UnsupportedModelError: If gates are not what credits are given to.
    """
    columns = [(column.layer, column.part or "block") for column in gated.columns]
    for result in results:
        if columns != [(s.layer, s.part) for s in result.segments]:
            raise UnsupportedModelError(
                "The parts of this model's blocks cannot be taken out one by one as "
                "they are credited. Take whole layers instead."
            )
    return [
        Gated(
            gated,
            text_before(result, row),
            target,
            result.unit,
            at_once(decoder, int(result.positions[row])),
            at,
            means,
            done,
        )
        for result in results
        for row, target in enumerate(result.targets)
    ]


def text_before(result: Attribution, row: int) -> Int[Tensor, " text"]:
    """The tokens up to the one that predicts a row's."""
    return torch.from_numpy(result.token_ids[: int(result.positions[row])]).long()


def effects_without(
    subjects: Sequence[Gated], results: Sequence[Attribution], kind: Kind = "skip"
) -> Effects:
    """What every row loses without each column, in a run of its own.

    Args:
        subjects: The rows as functions of gates.
        results: What the readout says of them.
        kind: How their gates close.
    """
    n_columns = subjects[0].n_columns
    gates = torch.cat([torch.ones(1, n_columns), 1 - torch.eye(n_columns)])
    gates = torch.cat([gates, torch.zeros(1, n_columns)])
    levels = np.stack([subject.levels(gates).numpy() for subject in subjects])
    unknown = np.full(len(subjects), np.nan)
    return Effects(
        kind=kind,
        at=subjects[0].at,
        effects=levels[:, :1] - levels[:, 1:-1],
        results=tuple(results),
        intact=levels[:, 0],
        removed=levels[:, -1],
        closed=unknown,
        apart=unknown,
        runs=(len(gates),) * len(subjects),
    )
