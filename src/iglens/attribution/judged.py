"""A question that was checked: rows, path, and what is known about the readout."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..errors import ArgumentError
from ..readout import AbstractReadout
from ..readout.lens import AbstractLens
from ..records import Flag, Subject, Unit
from ..trace import Trace
from .baseline import BaselineLike
from .path import Path, make_path
from .recording import readout_info
from .rows import Rows, Targets, resolve_rows
from .verdict import Verdict, judge

_KINDS = {
    "contrast": "a contrast",
    "entropy": "an entropy",
    "kl": "a divergence",
    "scalar": "a scalar of your own",
}
"""What a target is that is neither token nor set."""


@dataclass(frozen=True, eq=False)
class Judged:
    """Which states are read, for which tokens, with what.

    Attributes:
        trace: The states, at the precision they are read in.
        rows: What is explained.
        path: The states that are visited.
        verdict: How far that is the model's own.
    """

    trace: Trace
    rows: Rows
    path: Path
    verdict: Verdict

    @property
    def readout(self) -> AbstractReadout:
        """What the states are read with."""
        return self.trace.readout

    def subject(
        self, flags: Sequence[Flag] = (), warnings: Sequence[str] = ()
    ) -> Subject:
        """What a result made of this says about itself.

        Args:
            flags: Cells found odd while reading.
            warnings: Further sentences that a reader must see.
        """
        trace, verdict, path = self.trace, self.verdict, self.path
        known = {(flag.row, flag.point) for flag in verdict.flags}
        new = tuple(f for f in flags if (f.row, f.point) not in known)
        notes = () if path.lens is None else path.lens.notes
        return Subject(
            token_ids=trace.token_ids.cpu().numpy(),
            token_texts=trace.token_texts,
            positions=trace.positions[self.rows.place].cpu().numpy(),
            targets=self.rows.targets,
            segments=path.segments,
            baseline_kind=path.baseline.kind,
            lens="logit" if path.lens is None else path.lens.name,
            fidelity=verdict.fidelity,
            readout=readout_info(trace, verdict),
            provenance=trace.provenance,
            flags=verdict.flags + new,
            warnings=(*trace.warnings, *verdict.warnings, *notes, *warnings),
        )


def judged(
    trace: Trace,
    targets: Targets,
    *,
    layers: Sequence[int] | None,
    baseline: BaselineLike,
    lens: AbstractLens | None,
    unit: Unit,
    precision: torch.dtype | None,
    strict: bool,
    memory_budget: int,
) -> Judged:
    """Resolve and check what is asked about tokens and sets; see `attribute`.

    Raises:
        ArgumentError: If a target is no token or set, or an argument does not fit.
        FidelityError: In strict mode, if the readout is not the model's own.
        NonFiniteError: In strict mode, if a state is not finite.
    """
    if trace.measure != "total_variation":
        raise ArgumentError(
            "These logits are of no distribution (a reward, or labels that are judged "
            "one by one): nothing has rivals or a promotion, only a level."
        )
    rows = resolve_rows(trace, targets)
    for target in rows.targets:
        if target.kind not in ("token", "set"):
            raise ArgumentError(
                f"`targets` holds {target.name!r}, {_KINDS[target.kind]}; this takes "
                "tokens and sets of tokens only."
            )
    path = make_path(trace, layers, baseline, lens)
    verdict = judge(path, rows, unit, strict=strict, memory_budget=memory_budget)
    if precision is not None:
        trace = trace.with_precision(precision)
    return Judged(trace, rows, path, verdict)
