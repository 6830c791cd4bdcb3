"""Two runs, token by token: paired differences with intervals over prompts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .estimates import Band, Estimate

if TYPE_CHECKING:
    import pyarrow

    from ..report.charts import Chart

PairedBy = Literal["content", "id"]
"""What makes two rows a pair: the same token ids and target, or the same name and
distance from the end of the prompt."""

Steps = Literal["segments", "layers", "fractions"]
"""What is compared: segments that both paths have; stretches between layers at which
both stop; or tenths of the depth, for models of different depth."""


@dataclass(frozen=True)
class Side:
    """One of two runs.

    Attributes:
        run: What was asked, as in `Summary.run`.
        n_rows: Explained tokens in it.
        n_unpaired: Those of them that have no counterpart.
    """

    run: Mapping[str, Any]
    n_rows: int
    n_unpaired: int


@dataclass(frozen=True, eq=False)
class PairGroup:
    """Statistics of the pairs of one unit; every difference is `b - a`.

    Attributes:
        unit: Unit of levels and credits.
        n_prompts: Prompts (rows of a's input) that they come from.
        n_pairs: Pairs of tokens.
        n_left_out: Further pairs, left out because a level is not finite.
        a: Mean credits of a's side.
        b: Mean credits of b's side.
        credits: Mean difference of credits.
        final_a: Mean last level of a's side.
        final_b: Mean last level of b's side.
        final: Mean difference of last levels.
        depths: Mean shift of each depth where both have it: in layers, or, of models
            of different depth, in shares of it.
        n_depths: In how many pairs both have it.
        correct: Difference of the shares of correct targets.
        n_judged: Pairs in which that has a meaning on both sides.
    """

    unit: str
    n_prompts: int
    n_pairs: int
    n_left_out: int
    a: Band
    b: Band
    credits: Band
    final_a: Estimate
    final_b: Estimate
    final: Estimate
    depths: Mapping[str, Estimate]
    n_depths: Mapping[str, int]
    correct: Estimate
    n_judged: int


@dataclass(frozen=True, eq=False)
class RunDifference:
    """What changed from one run to another over the tokens of both: `b - a`.

    Attributes:
        a: The first run.
        b: The second one.
        paired_by: What makes two rows a pair.
        joined: How pairs were found: "shards" (both runs cut the same input alike, so
            that partners lie in shards of one number) or "partitions" (rows of both
            were sorted into files by a hash first).
        by: What is compared.
        labels: What to show for each step.
        ends: Layer each step ends at; of fractions, the share of the depth.
        groups: Statistics of the pairs, one group per unit.
        level: Share of intervals that are to be right.
        n_replicates: Replicates of the bootstrap.
        seed: What they were drawn from.
        notes: What else differs, and what was left out.
    """

    a: Side
    b: Side
    paired_by: PairedBy
    joined: str
    by: Steps
    labels: tuple[str, ...]
    ends: tuple[float, ...]
    groups: tuple[PairGroup, ...]
    level: float
    n_replicates: int
    seed: int
    notes: tuple[str, ...] = ()

    @property
    def n_pairs(self) -> int:
        """Pairs of all units, without those left out."""
        return sum(group.n_pairs for group in self.groups)

    def figure(self, kind: str | None = None, *, theme: str = "light") -> "Chart":
        """A chart.

        Args:
            kind: "difference" (mean difference of credits with its band), or "both"
                (mean credits of both sides); None for "difference".
            theme: "light" or "dark".

        Raises:
            ArgumentError: If there is no such chart, or nothing for it.
        """
        from ..report.charts.two_corpora import run_difference_figure

        return run_difference_figure(self, kind, theme=theme)

    def to_arrow(self) -> "pyarrow.Table":
        """One line per unit and step: means, differences and their bounds."""
        import pyarrow

        lines = [line for group in self.groups for line in self._lines(group)]
        number = pyarrow.float64()
        types = [("unit", pyarrow.string()), ("n_prompts", pyarrow.int64())]
        types += [("n_pairs", pyarrow.int64()), ("step", pyarrow.string())]
        names = ("end", "credit_a", "credit_b", "difference", "low", "high")
        types += [(n, number) for n in (*names, "band_low", "band_high")]
        return pyarrow.Table.from_pylist(lines, schema=pyarrow.schema(types))

    def _lines(self, group: PairGroup) -> list[dict[str, Any]]:
        """The lines of one unit."""
        credits = group.credits
        columns = {
            "end": np.array(self.ends, float),
            "credit_a": group.a.mean,
            "credit_b": group.b.mean,
            "difference": credits.mean,
            "low": credits.low,
            "high": credits.high,
            "band_low": credits.band_low,
            "band_high": credits.band_high,
        }
        named = {
            "unit": group.unit,
            "n_prompts": group.n_prompts,
            "n_pairs": group.n_pairs,
        }
        return [
            {**named, "step": label}
            | {name: float(values[at]) for name, values in columns.items()}
            for at, label in enumerate(self.labels)
        ]

    def to_json(self) -> dict[str, Any]:
        """The published JSON form; NaN becomes null."""
        from ..storage.run_difference_form import run_difference_to_json

        return run_difference_to_json(self)

    def save(self, path: str | Path, file_format: str | None = None) -> None:
        """Write it: `.json`, `.csv`, `.parquet`; `.html`, `.md`; or as a picture.

        Args:
            path: Where to; `.svg`, `.png` and `.pdf` are the natural picture.
            file_format: One of them, without its dot, for a path that has another.

        Raises:
            OutputError: If the format is unknown or the place not writable.
        """
        from ..report.sheets.corpora import RUN_DIFFERENCE
        from ..storage.run_difference_form import FORMATS, save_run_difference
        from .saving import save_record

        save_record(
            self,
            path,
            file_format,
            formats=FORMATS,
            data=save_run_difference,
            pages=RUN_DIFFERENCE,
        )

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Any:
        """What notebooks show: the chart, and the same in words."""
        from ..report.notebook import chart_bundle

        return chart_bundle(self)

    def __str__(self) -> str:
        """What is compared, the answer in a sentence, and what it rests on."""
        from ..report.run_difference import lines

        return "\n".join(lines(self))
