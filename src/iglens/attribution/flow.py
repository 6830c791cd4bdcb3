"""Rival flows of a trace: gains and losses of all layers, exchanges of some."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import ArgumentError
from ..readout import MEMORY_BUDGET, read
from ..readout.lens import AbstractLens
from ..readout.streamed import TokenLogits
from ..readout.target import token_level
from ..records import Flag, Flow
from ..trace import Trace
from .baseline import BaselineLike
from .chunk import Chunk, chunks, points_at_once
from .exchange import RULE, Exchange, exchange
from .judged import Judged, judged
from .rivals import rivals
from .rows import Targets

TOLERANCE = 1e-5
"""What an integrated flow may miss, in probability: some roundings of float32."""


def flows(
    trace: Trace,
    targets: Targets = None,
    *,
    layers: Sequence[int] | None = None,
    baseline: BaselineLike = "embedding",
    lens: AbstractLens | None = None,
    top: int = 5,
    exchange_layers: Sequence[int] | None = None,
    tolerance: float = TOLERANCE,
    precision: torch.dtype | None = None,
    strict: bool = True,
    memory_budget: int = MEMORY_BUDGET,
) -> Flow:
    """Which tokens gained and lost at each layer, and what the target took from whom.

    Gains and losses are differences of levels, for every segment, in two streamed
    passes over the vocabulary. The exchange of a segment is an integral along it and
    reads 17 whole rows of logits with their derivatives, or more where it bends; it is
    made for few segments therefore.

    Args:
        trace: States, and the model's own logits to verify them by.
        targets: Tokens or sets; None for the tokens the text has there.
        layers: Layers the path stops at; None for all that were traced.
        baseline: Where the path starts; see `attribute`.
        lens: What every state is read through. Segments then join what is read, so
            changes of the translator are part of them.
        top: How many tokens to name in each list.
        exchange_layers: Layers whose exchange is integrated; None for that which
            changes each target most.
        tolerance: What the integral may miss, in probability.
        precision: Dtype of the readout; None for float32 at least.
        strict: Refuse what cannot be verified instead of flagging it.
        memory_budget: Bytes that reading may hold.

    Returns:
        One row per (position, target), in probability.

    Raises:
        FidelityError: If reading the last states misses the model's own logits.
        NonFiniteError: If a state is not finite.
        ArgumentError: If an argument does not fit the trace, or a target is no token
            or set.
    """
    if top < 1:
        raise ArgumentError(f"`top` is {top}; name at least one token.")
    asked = judged(
        trace,
        targets,
        layers=layers,
        baseline=baseline,
        lens=lens,
        unit="probability",
        precision=precision,
        strict=strict,
        memory_budget=memory_budget,
    )
    top = min(top, asked.readout.vocab_size)
    found = _extremes(asked, top, memory_budget)
    credits = np.diff(found["levels"], axis=1)
    chosen = _chosen(asked, credits, exchange_layers)
    exchanged = _exchanges(asked, credits, chosen, top, tolerance, memory_budget)
    flags = _flags(found["levels"], exchanged)
    arrays = found | exchanged
    named = [arrays[name] for name in arrays if name.endswith("_ids")]
    ids = np.unique(np.concatenate([array.ravel() for array in named])).tolist()
    return Flow(
        subject=asked.subject(flags),
        tolerance=tolerance,
        rule=RULE,
        vocabulary={token: trace.decode(token) for token in ids if token >= 0},
        **arrays,
    )


def _extremes(asked: Judged, top: int, memory_budget: int) -> dict[str, np.ndarray]:
    """Levels, masses and the tokens that gained and lost most, for all rows."""
    at_once = points_at_once(asked.readout, memory_budget)
    pieces = [
        _read_chunk(asked, chunk, top, memory_budget)
        for chunk in chunks(asked.path, asked.rows, at_once)
    ]
    return {name: np.concatenate([p[name] for p in pieces]) for name in pieces[0]}


def _read_chunk(
    asked: Judged, chunk: Chunk, top: int, memory_budget: int
) -> dict[str, np.ndarray]:
    """Two passes over the vocabulary for the paths of some positions."""
    points, paths = chunk.states.shape[:2]
    read_once = read(
        asked.readout, chunk.flat_states, chunk.flat_tokens, memory_budget=memory_budget
    )
    parts = (read_once.logits, read_once.rest, read_once.rest_max)
    own = TokenLogits(*(chunk.of_rows(part).flatten(0, 1) for part in parts))
    chosen, against = (mask.repeat(points, 1) for mask in (chunk.chosen, chunk.against))
    levels = token_level(own, chosen, against, "probability").view(points, -1)
    found = rivals(
        asked.readout,
        chunk.states,
        read_once.log_normaliser.view(points, paths),
        top,
        memory_budget,
    )
    arrays = {
        name: _rows_first(getattr(found, name)[:, chunk.place])
        for name in ("gain_ids", "gains", "loss_ids", "losses", "mass")
    }
    return {"levels": _rows_first(levels)} | arrays


def _rows_first(values: Tensor) -> np.ndarray:
    """Points x rows x … on any device, as rows x points x … in NumPy."""
    return values.transpose(0, 1).contiguous().cpu().numpy()


def _chosen(
    asked: Judged,
    credits: Float[np.ndarray, "rows segments"],
    layers: Sequence[int] | None,
) -> Bool[np.ndarray, "rows segments"]:
    """Segments whose exchange is integrated: those named, or each row's largest."""
    path = [segment.layer for segment in asked.path.segments]
    chosen = np.zeros(credits.shape, dtype=bool)
    if layers is None:
        sizes = np.where(np.isfinite(credits), np.abs(credits), -1.0)
        chosen[np.arange(len(credits)), sizes.argmax(1)] = True
    elif unknown := sorted(set(layers) - set(path)):
        raise ArgumentError(
            f"`exchange_layers` names {unknown}, which are not on the path {path}."
        )
    else:
        chosen[:, np.isin(path, list(layers))] = True
    return chosen & np.isfinite(credits)


def _exchanges(
    asked: Judged,
    credits: Float[np.ndarray, "rows segments"],
    chosen: Bool[np.ndarray, "rows segments"],
    top: int,
    tolerance: float,
    memory_budget: int,
) -> dict[str, np.ndarray]:
    """The exchange of the chosen segments, row after row."""
    arrays = _unknown(credits.shape, top)
    path, rows = asked.path, asked.rows
    for row in np.flatnonzero(chosen.any(1)).tolist():
        place = int(rows.place[row])
        states = path.states(slice(place, place + 1))[:, 0]
        target = torch.zeros(asked.readout.vocab_size, dtype=torch.bool)
        target[list(rows.targets[row].ids)] = True
        target = target.to(states.device)
        for segment in np.flatnonzero(chosen[row]).tolist():
            found = exchange(
                asked.readout,
                states[segment],
                states[segment + 1],
                target,
                tolerance=tolerance,
                memory_budget=memory_budget,
            )
            _put(arrays, (row, segment), found, float(credits[row, segment]), target)
    return arrays


def _unknown(shape: tuple[int, ...], top: int) -> dict[str, np.ndarray]:
    """Arrays in which nothing is known yet."""
    listed, nowhere = (*shape, top), np.full((*shape, top), -1)
    arrays = {name: np.full(listed, np.nan) for name in ("sent", "received")}
    arrays |= {name: nowhere.copy() for name in ("sender_ids", "receiver_ids")}
    names = ("others", "residual", "disagreement", "drift")
    arrays |= {name: np.full(shape, np.nan) for name in names}
    return arrays | {"nodes": np.zeros(shape, dtype=np.int64)}


def _put(
    arrays: dict[str, np.ndarray],
    cell: tuple[int, int],
    found: Exchange,
    credit: float,
    target: Bool[Tensor, " vocab"],
) -> None:
    """Fill in one cell: its certificate, and its lists if that is good."""
    arrays["residual"][cell] = found.residual
    arrays["disagreement"][cell] = found.disagreement
    arrays["drift"][cell] = credit - found.change
    arrays["nodes"][cell] = found.nodes
    if not found.certified:
        return
    flow = found.closed_on(credit)
    listed = torch.zeros_like(target)
    for ids, amounts, sign in (
        ("sender_ids", "sent", 1),
        ("receiver_ids", "received", -1),
    ):
        values, order = (sign * flow).topk(arrays[ids].shape[-1])
        moved = values > 0
        listed[order[moved]] = True
        arrays[ids][cell] = order.masked_fill(~moved, -1).cpu().numpy()
        kept = values.masked_fill(~moved, 0.0)
        arrays[amounts][cell] = (sign * kept).cpu().numpy()
    arrays["others"][cell] = float(flow[~listed].sum())


def _flags(
    levels: Float[np.ndarray, "rows points"], exchanged: dict[str, np.ndarray]
) -> list[Flag]:
    """Flags for levels that are not finite, and for integrals that did not come out."""
    cells = np.argwhere(~np.isfinite(levels)).tolist()
    flags = [
        Flag(row, point, "non_finite_level", f"The level is {levels[row, point]}.")
        for row, point in cells
    ]
    failed = (exchanged["nodes"] > 0) & np.isnan(exchanged["others"])
    for row, segment in np.argwhere(failed).tolist():
        missed = exchanged["residual"][row, segment]
        apart = exchanged["disagreement"][row, segment]
        detail = (
            f"After {exchanged['nodes'][row, segment]} rows of logits the integral "
            f"still misses a change by {missed:.1g}, its rules differ by {apart:.1g}."
        )
        flags.append(Flag(row, segment + 1, "uncertified", detail))
    return flags
