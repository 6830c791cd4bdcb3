"""The one verb: from a trace to an attribution."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from ..errors import ArgumentError
from ..readout import MEMORY_BUDGET
from ..readout.lens import AbstractLens
from ..readout.measure import meaningful_unit
from ..records import Attribution, ReadoutInfo, Unit, check_unit
from ..trace import Trace
from .baseline import BaselineLike
from .components import certificate_flags, components
from .estimator import AbstractEstimator, Observed
from .fold import check_estimator, folded
from .opened import Named
from .path import Level, Path, check_level, check_top, make_path
from .reading import PathReading, read_paths
from .remarks import level_flags, overshoot_flags, warnings_of, whole_warnings
from .rows import Rows, Targets, resolve_rows
from .strokes import Question
from .verdict import Verdict, judge

DIAGNOSED_ROWS = 64
"""Ranks, divergences and top tokens are read by default for up to this many rows."""


def attribute(
    trace: Trace,
    targets: Targets = None,
    *,
    layers: Sequence[int] | None = None,
    by: Level = "layer",
    top: int | None = None,
    directions: Named | None = None,
    baseline: BaselineLike = "embedding",
    lens: AbstractLens | None = None,
    unit: Unit | None = None,
    estimator: AbstractEstimator | None = None,
    diagnostics: bool | None = None,
    precision: torch.dtype | None = None,
    strict: bool = True,
    memory_budget: int = MEMORY_BUDGET,
) -> Attribution:
    """Credit every layer with what it added to the level of each target.

    Equals reading every state of the path with the model's whole head, taking the
    target's level there, and differencing along the path; but the vocabulary is
    streamed, so that no `points x vocab` array is ever held.

    Args:
        trace: States, and the model's own logits to verify them by.
        targets: What to explain: tokens, sets, contrasts, `ENTROPY`, `KL_TO_FINAL`, or
            a `Scalar`; None for the tokens the text has there, or the label that a
            classifier finds most probable.
        layers: Layers the path stops at; None for all that were traced.
        by: "layer"; "sublayer" to stop between the parts of blocks too; or "head",
            "neuron" or "source" to share their credits over what they consist of
            (`Attribution.components`). The trace must have been made for it:
            `Decoder.trace(…, by="sublayer")`.
        top: Heads, neurons or (head, source token) pairs to keep per row and segment,
            the rest summed as others; None for all.
        directions: Open segments by directions of your own instead, given by layer and
            part ("block" for a whole layer): features of a sparse autoencoder, say.
            What they miss of the update is a part of its own, "error".
        baseline: Where the path starts; see `iglens.attribution.baseline`.
        lens: What every state is read through; None for the head alone. Each credit is
            then split into what the block wrote and what the translator changed.
        unit: Unit of levels and credits; logarithms are natural. None for probability,
            or logits where they are of no distribution (a reward).
        estimator: `Observed()` (default) or `Gradient(n_steps, rule)`.
        diagnostics: Whether to read ranks, divergences and top tokens; None for up
            to 64 rows.
        precision: Dtype of the readout; None for float32, or float64 if the model
            computes in that.
        strict: Refuse states that are not finite, and a readout that is not the
            model's own, instead of flagging them.
        memory_budget: Bytes that reading may hold. Changes memory and speed, not the
            result beyond rounding.

    Returns:
        One row per (position, target), in NumPy.

    Raises:
        FidelityError: If reading the last states misses the model's own logits.
        NonFiniteError: If a state is not finite.
        ArgumentError: If an argument does not fit the trace.

    References:
        arXiv:2606.29693 for the identity.
    """
    if unit is not None:
        check_unit(unit)
    check_top(top)
    unit = meaningful_unit(unit, trace.measure, trace.readout.vocab_size)
    estimator = estimator or Observed()
    rows = resolve_rows(trace, targets)
    path = make_path(trace, layers, baseline, lens, parted=check_level(by) != "layer")
    check_estimator(path, by if directions is None else "direction", estimator)
    verdict = judge(path, rows, unit, strict=strict, memory_budget=memory_budget)
    distributed = trace.measure == "total_variation"
    if diagnostics is None:
        diagnostics = len(rows.targets) <= DIAGNOSED_ROWS and distributed
    elif diagnostics and not distributed:
        raise ArgumentError(
            "`diagnostics` are of a distribution (ranks, divergences, the most "
            "probable), and these logits are of none. Leave them out."
        )
    if precision is not None:
        trace = trace.with_precision(precision)
    read = read_paths(
        path,
        rows,
        trace.readout,
        unit,
        estimator,
        diagnostics=diagnostics,
        memory_budget=memory_budget,
    )
    reading = folded(path, read)
    found = _record(trace, path, rows, reading, verdict, unit, estimator)
    if by in ("layer", "sublayer") and directions is None:
        return found
    question = Question(
        path, rows, trace.readout, unit, by, top, memory_budget, directions
    )
    inside = components(question, read, found.credits, found.writes)
    flags = certificate_flags(inside, found.segments, strict=strict)
    return replace(found, components=inside, flags=(*found.flags, *flags))


def _record(
    trace: Trace,
    path: Path,
    rows: Rows,
    reading: PathReading,
    verdict: Verdict,
    unit: Unit,
    estimator: AbstractEstimator,
) -> Attribution:
    """The arrays with their names, units, certificates and warnings."""
    finite = np.isfinite(reading.levels)
    steps = np.diff(np.where(finite, reading.levels, np.nan), axis=1)
    with np.errstate(invalid="ignore"):  # flagged where they are not finite
        writes = reading.levels[:, 1:] - reading.starts
    observed = isinstance(estimator, Observed)
    credits = steps if observed else reading.slopes
    shown = np.unique(reading.top_ids[reading.top_ids >= 0]).tolist()
    noise = _noise(trace, rows, unit)
    return Attribution(
        token_ids=trace.token_ids.cpu().numpy(),
        token_texts=trace.token_texts,
        positions=trace.positions[rows.place].cpu().numpy(),
        targets=rows.targets,
        segments=path.segments,
        levels=reading.levels,
        credits=np.where(np.isnan(steps), np.nan, credits),
        writes=np.where(np.isfinite(writes), writes if observed else np.nan, np.nan),
        top1=reading.top1 & (trace.measure == "total_variation"),
        model_value=verdict.model_value,
        fidelity=verdict.fidelity,
        log_fidelity=verdict.log_fidelity,
        rank=reading.rank,
        lens_kl=reading.kl,
        top_ids=reading.top_ids,
        top_probabilities=reading.top_probabilities,
        vocabulary={token: trace.decode(token) for token in shown},
        unit=unit,
        baseline_kind=path.baseline.kind,
        estimator=estimator.name,
        lens="logit" if path.lens is None else path.lens.name,
        noise_floor=noise,
        readout=readout_info(trace, verdict),
        provenance=trace.provenance,
        flags=(
            *verdict.flags,
            *level_flags(reading, verdict),
            *(() if path.lens is None else overshoot_flags(reading, noise)),
        ),
        warnings=(
            *trace.warnings,
            *verdict.warnings,
            *warnings_of(path, rows, reading, unit, estimator),
            *whole_warnings(path),
        ),
    )


def _noise(trace: Trace, rows: Rows, unit: Unit) -> Float[np.ndarray, " rows"]:
    """The noise floor of every row's level."""
    size = trace.readout.vocab_size
    return np.array([trace.noise.of(target, unit, size) for target in rows.targets])


def readout_info(trace: Trace, verdict: Verdict) -> ReadoutInfo:
    """How the levels were read."""
    return ReadoutInfo(
        kind=trace.readout.kind,
        dtype=str(trace.readout.precision).removeprefix("torch."),
        postprocess=trace.readout.postprocess,
        tolerance=trace.tolerance.of(trace.measure),
        power=float(np.fmax(verdict.power, trace.power)),
        measure=trace.measure,
    )
