"""Statistics of a whole run, with intervals that know that prompts were sampled."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool

from .estimates import Contrast, Group
from .segment import Segment

if TYPE_CHECKING:
    import pyarrow

    from ..report.charts import Chart


@dataclass(frozen=True, eq=False)
class Slice:
    """A run, sorted by a column.

    Attributes:
        column: Its name.
        groups: Rows with the same value, or in the same range.
        contrasts: If there are two groups of a unit, the second less the first.
    """

    column: str
    groups: tuple[Group, ...]
    contrasts: tuple[Contrast, ...] = ()


@dataclass(frozen=True, eq=False)
class NullBeside:
    """A run beside one in which there is nothing to find.

    Attributes:
        of: What was taken away: "targets" (rows were asked for each other's) or
            "weights" (drawn anew).
        groups: Its statistics, one group per unit.
        contrasts: The run less its null, one per unit of both.
    """

    of: str
    groups: tuple[Group, ...]
    contrasts: tuple[Contrast, ...]

    def clears(self, unit: str) -> Bool[np.ndarray, " segments"] | None:
        """Segments whose credit differs from the null's, all told at once.

        Those at which the band of the difference leaves out zero; None if there is no
        band, or no row of this unit.
        """
        for one in self.contrasts:
            if one.unit == unit and np.isfinite(one.credits.band_low).all():
                return one.credits.clear
        return None


@dataclass(frozen=True, eq=False)
class Summary:
    """What a run says as a whole.

    Attributes:
        run: What was asked, from `run.json`: "model", "input", "selection", "question",
            "reading", "null", "versions" and the hash of it all.
        segments: The steps of the path; none if nothing was explained.
        whole: Statistics of all rows: one group per unit.
        slices: The same by columns.
        null: A null run beside it, if one was given.
        n_items: Rows of the input that are in the store, explained or failed.
        n_total: Rows of the input that the whole run has.
        failures: Rows that could not be explained, by kind of error.
        level: Share of intervals that are to be right.
        n_replicates: Replicates of the bootstrap.
        seed: What they were drawn from.
        notes: Sentences a reader must see.
    """

    run: Mapping[str, Any]
    segments: tuple[Segment, ...]
    whole: tuple[Group, ...]
    slices: tuple[Slice, ...] = ()
    null: NullBeside | None = None
    n_items: int = 0
    n_total: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    level: float = 0.95
    n_replicates: int = 1000
    seed: int = 0
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every row of the input is in it."""
        return self.n_items == self.n_total

    @property
    def n_failures(self) -> int:
        """Rows that could not be explained."""
        return sum(self.failures.values())

    @property
    def layers(self) -> tuple[int, ...]:
        """Layer each segment ends at."""
        return tuple(segment.layer for segment in self.segments)

    def figure(self, kind: str | None = None, *, theme: str = "light") -> "Chart":
        """A chart.

        Args:
            kind: "credits" (mean credit by layer with its band), "levels", "onsets"
                (at which layers tokens became readable), "slices" (mean credit of the
                groups), or "null" (beside the null); None for "credits".
            theme: "light" or "dark".

        Raises:
            ArgumentError: If there is no such chart, or nothing for it.
        """
        from ..report.charts.corpus import summary_figure

        return summary_figure(self, kind, theme=theme)

    def to_arrow(self) -> "pyarrow.Table":
        """One line per group and segment; see `iglens.records.summary_table`."""
        from .summary_table import summary_table

        return summary_table(self)

    def to_json(self) -> dict[str, Any]:
        """The published JSON form; NaN becomes null."""
        from ..storage.summary_form import summary_to_json

        return summary_to_json(self)

    def save(self, path: str | Path, file_format: str | None = None) -> None:
        """Write it: `.json`, `.csv`, `.parquet`; `.html`, `.md`; or as a picture.

        Args:
            path: Where to; `.svg`, `.png` and `.pdf` are the natural picture.
            file_format: One of them, without its dot, for a path that has another.

        Raises:
            OutputError: If the extension is unknown or the place not writable.
        """
        from ..report.sheets.corpora import SUMMARY
        from ..storage.summary_form import FORMATS, save_summary
        from .saving import save_record

        save_record(
            self,
            path,
            file_format,
            formats=FORMATS,
            data=save_summary,
            pages=SUMMARY,
        )

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Any:
        """What notebooks show: the chart, and the same in words."""
        from ..report.notebook import chart_bundle

        return chart_bundle(self)

    def __str__(self) -> str:
        """The answer in a sentence, and what it rests on."""
        from ..report.summary import lines

        return "\n".join(lines(self))
