"""What a reader must be told about a reading: flagged cells and warnings."""

import numpy as np
import torch
from jaxtyping import Float

from ..records import Flag, Unit
from .baseline import LARGE_BASELINE
from .estimator import AbstractEstimator, Observed
from .path import Path
from .reading import PathReading
from .rows import Rows
from .verdict import Verdict

RESIDUAL_TOLD = 0.05
"""Share of the change that the gradient estimator may miss without a warning."""

OVERSHOOT_TOLD = 0.05
"""Share of the change by which a lens may pass the final level without a flag."""


def level_flags(reading: PathReading, verdict: Verdict) -> tuple[Flag, ...]:
    """Flags for levels that are not finite, unless their state is flagged."""
    known = {(flag.row, flag.point) for flag in verdict.flags}
    cells = np.argwhere(~np.isfinite(reading.levels)).tolist()
    return tuple(
        Flag(
            row,
            point,
            "non_finite_level",
            f"The level is {reading.levels[row, point]}.",
        )
        for row, point in cells
        if (row, point) not in known
    )


def overshoot_flags(
    reading: PathReading, noise: Float[np.ndarray, " rows"]
) -> list[Flag]:
    """A flag where a lens promises clearly more than the model ends up with."""
    with np.errstate(invalid="ignore"):
        change = reading.levels[:, -1:] - reading.levels[:, :1]
        beyond = np.sign(change) * (reading.levels - reading.levels[:, -1:])
        clear = np.maximum(OVERSHOOT_TOLD * np.abs(change), 10 * noise[:, None])
        over = beyond > np.nan_to_num(clear)
    worst = beyond.argmax(1)
    return [
        Flag(
            row,
            int(worst[row]),
            "overshoot",
            f"Through the lens the level passes its final value by "
            f"{beyond[row, worst[row]]:.2g} here.",
        )
        for row in np.flatnonzero(over.any(1)).tolist()
    ]


def warnings_of(
    path: Path,
    rows: Rows,
    reading: PathReading,
    unit: Unit,
    estimator: AbstractEstimator,
) -> tuple[str, ...]:
    """What a reader must see about the baseline, the lens and the estimator."""
    found = _baseline_warning(path, rows, reading, unit)
    found += [] if path.lens is None else path.lens.notes
    if path.baseline.kind == "zero" and not isinstance(estimator, Observed):
        found.append(
            "The gradient estimator means nothing on the segment that leaves the zero "
            "baseline: the norm is scale-free, so the readout jumps there."
        )
    if not isinstance(estimator, Observed):
        found += _residual_warning(reading)
    return tuple(found)


def whole_warnings(path: Path) -> tuple[str, ...]:
    """Which blocks stay whole on a path through parts, and why."""
    if not path.parted:
        return ()
    reasons: dict[str, list[int]] = {}
    for block in path.blocks:
        single = block.after is not None and block.layer == block.after + 1
        if block.parts is None and single:
            reason = path.trace.whole.get(block.layer, "it was not taken apart")
            reasons.setdefault(reason, []).append(block.layer)
    return tuple(
        f"{'Layer' if len(layers) == 1 else 'Layers'} {_ranges(layers)} "
        f"{'stays' if len(layers) == 1 else 'stay'} whole: {reason}."
        for reason, layers in reasons.items()
    )


def _ranges(numbers: list[int]) -> str:
    """Ascending numbers in few words.

    Example:
        >>> _ranges([1, 2, 3, 5])
        '1 to 3, 5'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{r[0]} to {r[-1]}" if len(r) > 1 else f"{r[0]}" for r in runs)


def _baseline_warning(
    path: Path, rows: Rows, reading: PathReading, unit: Unit
) -> list[str]:
    """A warning where a target is probable already where the path starts."""
    if unit == "logit":
        return []
    start = torch.from_numpy(reading.levels[:, 0])
    p_base = {
        "probability": start,
        "log_probability": start.exp(),
        "log_odds": start.sigmoid(),
    }[unit]
    single = torch.tensor([t.kind in ("token", "set") for t in rows.targets])
    chance = 1 / path.trace.readout.vocab_size  # of few labels each is likely
    limit = max(LARGE_BASELINE, 2 * chance)
    large = (p_base > limit) & single
    if not bool(large.any()):
        return []
    worst = int(p_base.nan_to_num().masked_fill(~single, -1.0).argmax())
    return [
        f"The {path.baseline.kind} baseline already gives {int(large.sum())} of "
        f"{len(rows.targets)} targets more than {limit:.2g} (most: "
        f"{rows.targets[worst].text!r}, {float(p_base[worst]):.3f}); the credits "
        "show only what is added to that."
    ]


def _residual_warning(reading: PathReading) -> list[str]:
    """A warning where the integrated slopes clearly miss the change they integrate."""
    finite = np.isfinite(reading.levels).all(1)  # the others are flagged
    change = reading.levels[finite, -1] - reading.levels[finite, 0]
    missed = np.abs(reading.slopes[finite].sum(1) - change)
    if not (missed > RESIDUAL_TOLD * np.abs(change)).any():
        return []
    return [
        f"The gradient estimator's credits miss the change they explain by up to "
        f"{np.nanmax(missed):.2g}; take more `n_steps`, or the observed estimator."
    ]
