"""What is asked of traces, besides which and of what: read, judged, recorded."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ..errors import ArgumentError
from ..readout import AbstractReadout
from ..records import Attribution, Unit
from ..trace import Trace
from .components import certificate_flags, components
from .estimator import AbstractEstimator, Observed
from .fold import check_estimator, folded, side_by_side
from .opened import Named
from .path import Level, Path
from .reading import PathReading, read_paths
from .recording import record_of
from .rows import Rows
from .strokes import Question
from .together import Together
from .verdict import Verdict, judge

DIAGNOSED_ROWS = 64
"""Ranks, divergences and top tokens are read by default for up to this many rows."""


@dataclass(frozen=True, eq=False)
class Asked:
    """What is asked of all texts; see `attribute`."""

    by: Level
    top: int | None
    directions: Named | None
    unit: Unit
    estimator: AbstractEstimator
    diagnostics: bool | None
    tolerance: float
    precision: torch.dtype | None
    strict: bool
    memory_budget: int

    def of(self, paths: Sequence[Path], rows: Sequence[Rows]) -> list[Attribution]:
        """The answer for every text of some that are read together."""
        together = Together.of(paths, rows)
        path, every = together.path, together.rows
        by = self.by if self.directions is None else "direction"
        check_estimator(path, by, self.estimator)
        budget = self.memory_budget
        verdict = judge(
            path, every, self.unit, strict=self.strict, memory_budget=budget
        )
        readout = self._readout(path.trace)
        diagnosed = self._diagnosed(path.trace, len(every.targets))
        pruned_below = self._pruned_below(path, diagnosed=diagnosed)
        read = read_paths(
            path,
            every,
            readout,
            self.unit,
            self.estimator,
            diagnostics=diagnosed,
            tolerance=pruned_below,
            memory_budget=budget,
        )
        return [
            self._one(own, few, read.at(at), verdict.at(at), pruned_below)
            for own, few, at in zip(paths, rows, together.rows_of, strict=True)
        ]

    def _one(
        self,
        path: Path,
        rows: Rows,
        read: PathReading,
        verdict: Verdict,
        pruned_below: float,
    ) -> Attribution:
        """The record of one text, and what is inside its segments if asked for."""
        reading = folded(path, read)
        trace = replace(path.trace, readout=self._readout(path.trace))
        found = record_of(
            trace,
            path,
            rows,
            reading,
            verdict,
            self.unit,
            self.estimator,
            pruned_below=pruned_below,
        )
        if self.by in ("layer", "sublayer") and self.directions is None:
            return found
        question = Question(
            path,
            rows,
            trace.readout,
            self.unit,
            self.by,
            self.top,
            self.memory_budget,
            self.directions,
        )
        inside = components(question, read, found.credits, found.writes)
        flags = certificate_flags(inside, found.segments, strict=self.strict)
        return replace(found, components=inside, flags=(*found.flags, *flags))

    def _readout(self, trace: Trace) -> AbstractReadout:
        """What states are read with."""
        if self.precision is None:
            return trace.readout
        return trace.readout.with_precision(self.precision)

    def _pruned_below(self, path: Path, *, diagnosed: bool) -> float:
        """The tolerance that applies: 0 where levels must be exact everywhere.

        Ranks and divergences need whole rows; shares inside segments, orders of parts
        that stand side by side and what a lens changes are differences of levels that
        may all be small; slopes and logarithms of bounds are no bounds of much.
        """
        exact = (
            diagnosed
            or self.unit != "probability"
            or self.by not in ("layer", "sublayer")
            or self.directions is not None
            or path.lens is not None
            or not isinstance(self.estimator, Observed)
            or any(side_by_side(block) for block in path.blocks)
        )
        return 0.0 if exact else self.tolerance

    def _diagnosed(self, trace: Trace, n_rows: int) -> bool:
        """Whether ranks, divergences and top tokens are read.

        Raises:
            ArgumentError: If they are asked for, and there is no distribution.
        """
        distributed = trace.measure == "total_variation"
        if self.diagnostics and not distributed:
            raise ArgumentError(
                "`diagnostics` are of a distribution (ranks, divergences, the most "
                "probable), and these logits are of none. Leave them out."
            )
        if self.diagnostics is None:
            return n_rows <= DIAGNOSED_ROWS and distributed
        return self.diagnostics
