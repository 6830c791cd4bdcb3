"""Is what will be read the model's own? Judged on every run, before reading.

Two errors are never confused here: *completeness* (does it add up) is left to the
result; this is about *fidelity* (is it the model's own distribution).
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import FidelityError, NonFiniteError
from ..readout import TokenLogits
from ..readout.fidelity import POWER_NEEDED, Check, check, diagnose
from ..readout.measure import Measure, gap, in_words
from ..readout.target import token_level
from ..records import Flag, Unit
from ..trace import Trace
from .path import Path
from .rows import Rows
from .scalar import function_of

POWER_ROWS = 8
"""Rows on which a wrong state is tried."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """What is known about the readout on this run.

    Attributes:
        fidelity: Gap between readout and model, per row; NaN if unknown.
        log_fidelity: Difference of the target's log-probability, in nats; of a
            contrast the larger of two; NaN for a scalar of the whole distribution.
        model_value: Level of the target in the model's own output; NaN if unknown.
        power: Tolerances by which the state before the last misses; NaN if unknown.
        flags: Rows and cells that are not to be relied on.
        warnings: Sentences a reader must see.
    """

    fidelity: Float[np.ndarray, " rows"]
    log_fidelity: Float[np.ndarray, " rows"]
    model_value: Float[np.ndarray, " rows"]
    power: float
    flags: tuple[Flag, ...]
    warnings: tuple[str, ...]

    def at(self, rows: slice) -> "Verdict":
        """The verdict on some of the rows; power and warnings are those of all."""
        own = range(len(self.fidelity))[rows]
        return Verdict(
            self.fidelity[rows],
            self.log_fidelity[rows],
            self.model_value[rows],
            self.power,
            tuple(
                replace(flag, row=own.index(flag.row))
                for flag in self.flags
                if flag.row in own
            ),
            self.warnings,
        )


def judge(
    path: Path, rows: Rows, unit: Unit, *, strict: bool, memory_budget: int
) -> Verdict:
    """Check the states of a path and the readout of its end.

    Raises:
        NonFiniteError: In strict mode, if a state or a logit is not finite.
        FidelityError: In strict mode, if the readout misses the model's own output
            by more than the noise floor allows, or if that output is not known.
    """
    trace = path.trace
    flags = _non_finite_states(path, rows)
    if strict and flags:
        raise NonFiniteError(
            f"{flags[0].detail} No credit means anything next to it. Pass "
            "`strict=False` to have such cells flagged instead."
        )
    if trace.logits is None:
        return _unverified(rows, flags, strict)
    found = check(
        trace.readout,
        trace.states[-1],
        trace.logits,
        rows.tokens,
        trace.measure,
        memory_budget=memory_budget,
    )
    fidelity = found.missed[rows.place]
    log_fidelity = _missed(found, rows, "log_probability")
    good = (fidelity <= trace.tolerance.of(trace.measure)) & ~(
        log_fidelity > trace.tolerance.log_probability
    )
    if unit == "logit":  # which no distribution fixes
        good &= ~(_missed(found, rows, "logit") > trace.tolerance.logit)
    if not bool(good.all()):
        if strict:
            raise _refusal(path, rows, good, fidelity, log_fidelity)
        flags += _unfaithful(good, fidelity, trace.measure)
    power = _power(path)
    return Verdict(
        fidelity.cpu().numpy(),
        log_fidelity.cpu().numpy(),
        _model_value(trace, rows, found.own, unit),
        power,
        flags,
        _warnings(power, trace),
    )


def _missed(found: Check, rows: Rows, unit: Unit) -> Float[Tensor, " rows"]:
    """By how much the readout misses each row's tokens, NaN where there are none."""
    missed = torch.zeros_like(rows.place, dtype=torch.float64)
    for mask in (rows.chosen, rows.against):
        nothing = torch.zeros_like(mask)
        ours, own = (
            token_level(part.at(rows.place), mask, nothing, unit)
            for part in (found.ours, found.own)
        )
        gap = (ours - own).abs().masked_fill(ours == own, 0.0)  # -inf twice
        missed = torch.maximum(missed, gap.masked_fill(~mask.any(1), 0.0))
    return missed.masked_fill(~rows.chosen.any(1), torch.nan)


def _model_value(
    trace: Trace, rows: Rows, own: TokenLogits, unit: Unit
) -> Float[np.ndarray, " rows"]:
    """Level of every row's target in the model's own output."""
    assert trace.logits is not None  # compared just before
    values = token_level(own.at(rows.place), rows.chosen, rows.against, unit)
    for row, target in enumerate(rows.targets):
        if not target.of_tokens:
            logits = trace.logits[rows.place[row]].double()
            function = function_of(target, rows.scalars[row], logits)
            values[row] = function(logits[None])[0]
    return values.cpu().numpy()


def _non_finite_states(path: Path, rows: Rows) -> tuple[Flag, ...]:
    """A flag for every point whose state holds NaN or infinity, in some row."""
    trace, flags = path.trace, []
    for point, (place, states) in enumerate(path.named_points()):
        bad = ~torch.isfinite(states).all(-1)
        for row in bad[rows.place].nonzero().flatten().tolist():
            position = int(trace.positions[rows.place[row]])
            detail = (
                f"The state {place} that predicts position {position} holds NaN or "
                "infinity."
            )
            flags.append(Flag(row, point, "non_finite_state", detail))
    return tuple(flags)


def _unverified(rows: Rows, flags: tuple[Flag, ...], strict: bool) -> Verdict:
    """The verdict on states whose own logits are not known."""
    if strict:
        raise FidelityError(
            "These states come without the logits of their run, so nothing can be "
            "verified. Pass `logits=` to `Trace.with_states`, or `strict=False`."
        )
    n_rows = len(rows.targets)
    unknown = np.full(n_rows, np.nan)
    detail = "The model's own output is not known."
    flags += tuple(Flag(row, None, "unverified", detail) for row in range(n_rows))
    warning = f"Not verified: {detail}"
    return Verdict(unknown, unknown, unknown, np.nan, flags, (warning,))


def _unfaithful(
    good: Tensor, fidelity: Float[Tensor, " rows"], measure: Measure
) -> tuple[Flag, ...]:
    """A flag for every row outside tolerance."""
    return tuple(
        Flag(
            row,
            None,
            "unfaithful",
            "The readout misses the model's own output by "
            f"{in_words(float(fidelity[row]), measure)}.",
        )
        for row in (~good).nonzero().flatten().tolist()
    )


def _refusal(
    path: Path, rows: Rows, good: Tensor, fidelity: Tensor, log_fidelity: Tensor
) -> FidelityError | NonFiniteError:
    """The error that says what differs, by how much, and the likely cause."""
    trace = path.trace
    assert trace.logits is not None  # compared just before
    if not bool(torch.isfinite(fidelity).all()):
        return NonFiniteError(
            "The model's own logits are not finite at position "
            f"{int(trace.positions[rows.place[(~fidelity.isfinite()).int().argmax()]])}"
            ". Check its weights, or load it in a wider `dtype`."
        )
    worst = int((fidelity + log_fidelity.nan_to_num()).masked_fill(good, -1).argmax())
    place = rows.place[~good].unique()[:POWER_ROWS]
    cause = diagnose(
        trace.readout,
        trace.states[:, place],
        trace.logits[place],
        trace.tolerance.of(trace.measure),
        trace.measure,
    )
    allowed = trace.tolerance
    position = int(trace.positions[rows.place[worst]])
    if trace.measure == "logit":
        return FidelityError(
            f"Reading the last state does not give the model's own output: at position "
            f"{position} it misses by {in_words(float(fidelity[worst]), trace.measure)}"
            f" (tolerance {allowed.logit:.1g}). {cause}"
        )
    return FidelityError(
        "Reading the last state does not give the model's own distribution: at "
        f"position {position} the total variation is "
        f"{float(fidelity[worst]):.3g} (tolerance {allowed.total_variation:.1g}) and "
        f"the target's log-probability is off by {float(log_fidelity[worst]):.3g} nats "
        f"(tolerance {allowed.log_probability:.1g}). {cause}"
    )


def _power(path: Path) -> float:
    """Tolerances by which the state before the last one misses, at most."""
    trace = path.trace
    assert trace.logits is not None  # only called when verified
    wrong = trace.readout.logits(trace.states[-2, :POWER_ROWS])
    missed = gap(wrong, trace.logits[:POWER_ROWS], trace.measure)
    return float(missed.max()) / trace.tolerance.of(trace.measure)


def _warnings(power: float, trace: Trace) -> tuple[str, ...]:
    """What a reader must know about the check itself."""
    best = float(np.fmax(power, trace.power))  # either may be unknown
    if best >= POWER_NEEDED:
        return ()
    return (
        "The fidelity check cannot tell here: even a wrong state misses the model's "
        f"output by only {best:.2g} tolerances.",
    )
