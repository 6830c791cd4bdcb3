"""The one verb: from a trace to an attribution."""

from collections.abc import Sequence

import torch

from ..errors import ArgumentError
from ..readout import MEMORY_BUDGET, TOLERANCE
from ..readout.lens import AbstractLens
from ..readout.measure import meaningful_unit
from ..readout.pruning import check_tolerance
from ..records import Attribution, Unit, check_unit
from ..trace import Trace
from .asked import Asked
from .baseline import BaselineLike
from .estimator import AbstractEstimator, Observed
from .opened import Named
from .path import Level, check_level, check_top, make_path
from .rows import Targets, resolve_rows
from .together import Together


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
    tolerance: float = TOLERANCE,
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
        tolerance: Probability below which a point may be finished early, which takes
            no diagnostics, the observed estimator and hundreds of states. Its level is
            then an upper bound (`Attribution.pruned`) and the true one between 0 and
            that. Credits add up as ever. 0 reads every point in full.
        precision: Dtype of the readout; None for float32, or float64 if the model
            computes in that.
        strict: Refuse states that are not finite, and a readout that is not the
            model's own, instead of flagging them.
        memory_budget: Bytes that reading may hold. Changes memory and speed, not the
            result beyond rounding and `tolerance`.

    Returns:
        One row per (position, target), in NumPy.

    Raises:
        FidelityError: If reading the last states misses the model's own logits.
        NonFiniteError: If a state is not finite.
        ArgumentError: If an argument does not fit the trace.

    References:
        arXiv:2606.29693 for the identity.
    """
    (found,) = attribute_many(
        [trace],
        [targets],
        layers=layers,
        by=by,
        top=top,
        directions=directions,
        baselines=[baseline],
        lens=lens,
        unit=unit,
        estimator=estimator,
        diagnostics=diagnostics,
        tolerance=tolerance,
        precision=precision,
        strict=strict,
        memory_budget=memory_budget,
    )
    return found


def attribute_many(
    traces: Sequence[Trace],
    targets: Sequence[Targets],
    *,
    layers: Sequence[int] | None = None,
    by: Level = "layer",
    top: int | None = None,
    directions: Named | None = None,
    baselines: Sequence[BaselineLike] | None = None,
    lens: AbstractLens | None = None,
    unit: Unit | None = None,
    estimator: AbstractEstimator | None = None,
    diagnostics: bool | None = None,
    tolerance: float = TOLERANCE,
    precision: torch.dtype | None = None,
    strict: bool = True,
    memory_budget: int = MEMORY_BUDGET,
) -> list[Attribution]:
    """What `attribute` gives of one text after the other, read in one pass.

    Equals that within rounding and `tolerance`. Below whole layers texts are read one
    by one.

    Args:
        traces: Texts of one decoder, traced at the same layers.
        targets: What to explain in each of them.
        layers: As in `attribute`, and so are the others.
        by: How far down.
        top: Parts to keep.
        directions: For a single text only.
        baselines: Where each path starts; None for the embedding.
        lens: What states are read through.
        unit: Unit of levels and credits.
        estimator: The rule of credit.
        diagnostics: Whether to read ranks; None for up to 64 rows in all.
        tolerance: Probability below which points may be finished early; 0 for none.
        precision: Dtype of the readout.
        strict: Refuse all of them if one cannot be relied on.
        memory_budget: Bytes that reading may hold.

    Raises:
        IGLensError: As `attribute`.
    """
    if unit is not None:
        check_unit(unit)
    check_top(top)
    check_level(by)
    check_tolerance(tolerance)
    traces = list(traces)
    starts = [*(baselines or ["embedding"] * len(traces))]
    if not len(traces) == len(targets) == len(starts) or not traces:
        raise ArgumentError(
            f"`traces` holds {len(traces)}, `targets` {len(targets)} and `baselines` "
            f"{len(starts)}; give at least one trace, and one of each for it."
        )
    rows = [resolve_rows(*each) for each in zip(traces, targets, strict=True)]
    parted = by != "layer"
    paths = [
        make_path(trace, layers, start, lens, parted=parted)
        for trace, start in zip(traces, starts, strict=True)
    ]
    asked = Asked(
        by,
        top,
        directions,
        meaningful_unit(unit, traces[0].measure, traces[0].readout.vocab_size),
        estimator or Observed(),
        diagnostics,
        float(tolerance),
        precision,
        strict,
        memory_budget,
    )
    if Together.can(paths):
        return asked.of(paths, rows)
    pairs = zip(paths, rows, strict=True)
    return [found for path, row in pairs for found in asked.of([path], [row])]
