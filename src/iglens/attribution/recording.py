"""From what was read to the record: names, units, certificates and warnings."""

import numpy as np
from jaxtyping import Float

from ..records import Attribution, ReadoutInfo, Unit
from ..trace import Trace
from .estimator import AbstractEstimator, Observed
from .path import Path
from .reading import PathReading
from .remarks import level_flags, overshoot_flags, warnings_of, whole_warnings
from .rows import Rows
from .verdict import Verdict


def record_of(
    trace: Trace,
    path: Path,
    rows: Rows,
    reading: PathReading,
    verdict: Verdict,
    unit: Unit,
    estimator: AbstractEstimator,
    *,
    pruned_below: float = 0.0,
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
        pruned=reading.pruned,
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
        readout=readout_info(trace, verdict, pruned_below),
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


def readout_info(
    trace: Trace, verdict: Verdict, pruned_below: float = 0.0
) -> ReadoutInfo:
    """How the levels were read."""
    return ReadoutInfo(
        kind=trace.readout.kind,
        dtype=str(trace.readout.precision).removeprefix("torch."),
        postprocess=trace.readout.postprocess,
        tolerance=trace.tolerance.of(trace.measure),
        power=float(np.fmax(verdict.power, trace.power)),
        measure=trace.measure,
        pruned_below=pruned_below,
    )
