"""Numbers per layer that are no differences of levels, beside those that are."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from ..errors import OutputError
from .attribution import Attribution
from .segment import Segment
from .target import Target, Unit

if TYPE_CHECKING:
    import pyarrow

    from ..report.charts import Chart

Kind = Literal["skip", "mean", "gates"]
"""How an effect was taken: blocks skipped, their updates replaced by a mean, or all
gates opened together."""


@dataclass(frozen=True, eq=False)
class Effects:
    """What segments do to a target in the whole model, beside what the readout credits.

    Of a skip or a mean ablation: the level of the model as it is minus that without
    the segment. They need not add up to anything. Of the gate path: the integral of
    the level's derivative by each gate, all of them opening together; these add up to
    `intact - removed`.

    Attributes:
        kind: How they were taken.
        at: "all" tokens, or the "last".
        effects: One for every row and segment, in the unit of the results.
        results: What the readout says of the same rows: several of one text, or one
            row for each of several texts.
        intact: Level of the model as it is.
        removed: Level with every segment taken out.
        closed: Gate path: the sum's error before it was spread over the gates evenly.
        apart: Gate path: what its two rules differ by, at most over the segments.
        runs: Forward passes per row, those in one batch counted one by one.
        tolerance: Gate path: what `closed` and `apart` may be; NaN for others.
    """

    kind: Kind
    at: str
    effects: Float[np.ndarray, "rows segments"]
    results: tuple[Attribution, ...]
    intact: Float[np.ndarray, " rows"]
    removed: Float[np.ndarray, " rows"]
    closed: Float[np.ndarray, " rows"]
    apart: Float[np.ndarray, " rows"]
    runs: tuple[int, ...]
    tolerance: float = float("nan")

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The steps of the path."""
        return self.results[0].segments

    @property
    def unit(self) -> Unit:
        """Unit of credits and effects."""
        return self.results[0].unit

    @property
    def targets(self) -> tuple[Target, ...]:
        """What is explained, one per row."""
        return tuple(target for result in self.results for target in result.targets)

    @property
    def positions(self) -> tuple[int, ...]:
        """Index of the predicted token of every row."""
        return tuple(int(at) for result in self.results for at in result.positions)

    @cached_property
    def credits(self) -> Float[np.ndarray, "rows segments"]:
        """What the readout credits every segment with."""
        return np.concatenate([result.credits for result in self.results])

    @property
    def ledger(self) -> Float[np.ndarray, "rows segments"]:
        """Effects minus credits; of the gate path it sums to 0 over the segments.

        Positive where a segment prepares what later ones make readable, negative where
        it makes readable what earlier ones prepared.
        """
        return self.effects - self.credits

    @property
    def certified(self) -> Bool[np.ndarray, " rows"]:
        """Whether a gate path's certificate is within its tolerance; others need none.

        False where a part of the certificate is not a number.
        """
        if self.kind != "gates":
            return np.ones(len(self.effects), bool)
        worst = np.maximum(np.abs(self.closed), self.apart)
        return np.asarray(worst <= self.tolerance)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences a reader must see: those of the results, and of the certificate."""
        said = [warning for result in self.results for warning in result.warnings]
        for row in np.flatnonzero(~self.certified).tolist():
            said.append(
                f"The gate path of {self.targets[row].name!r} at "
                f"{self.positions[row]} is not certified to {self.tolerance:.1g}: its "
                f"sum is off by {self.closed[row]:.1g}, two rules differ by "
                f"{self.apart[row]:.1g}."
            )
        return tuple(dict.fromkeys(said))

    def figure(self, *, row: int = 0, theme: str = "light") -> "Chart":
        """A chart of effects beside credits by layer, and of their difference.

        Args:
            row: Whose.
            theme: "light" or "dark".

        Raises:
            ArgumentError: If there is no such row or theme.
        """
        from ..report.charts import effects_figure

        return effects_figure(self, row=row, theme=theme)

    def to_arrow(self) -> "pyarrow.Table":
        """One line per row and segment."""
        from .effects_table import effects_table

        return effects_table(self)

    def to_json(self) -> dict[str, Any]:
        """The published JSON form; NaN and infinity become null."""
        from ..storage.effects_form import effects_to_json

        return effects_to_json(self)

    def text(self, file_format: str) -> str:
        """A page for people.

        Args:
            file_format: "md" or "html".

        Raises:
            OutputError: If there is no such page.
        """
        from ..report.sheets import EFFECTS

        if f".{file_format}" not in EFFECTS:
            known = ", ".join(name.removeprefix(".") for name in EFFECTS)
            raise OutputError(
                f"Effects have no page {file_format!r}, only {known}; `save` writes "
                "other forms."
            )
        return EFFECTS[f".{file_format}"](self)

    def save(self, path: str | Path, file_format: str | None = None) -> None:
        """Write it: `.json`, `.csv`, `.parquet`; `.html`, `.md`; or as a picture.

        Args:
            path: Where to; `.svg`, `.png` and `.pdf` are pictures.
            file_format: One of them, without its dot, for a path that has another.

        Raises:
            OutputError: If the format is unknown or the place not writable.
        """
        from ..report.sheets import EFFECTS
        from ..storage.effects_form import EFFECTS_FORMATS, save_effects
        from .saving import save_record

        save_record(
            self,
            path,
            file_format,
            formats=EFFECTS_FORMATS,
            data=save_effects,
            pages=EFFECTS,
        )

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Any:
        """What notebooks show: the chart, and the same in words."""
        from ..report.notebook import chart_bundle

        return chart_bundle(self)

    def __str__(self) -> str:
        """What each end of the model says, who prepares and who cashes in."""
        from ..report.effects import lines

        return "\n".join(lines(self))
