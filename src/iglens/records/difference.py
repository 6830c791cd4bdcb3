"""Two runs side by side: the difference of two additive tables is additive."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from ..errors import ArgumentError
from .attribution import Attribution
from .segment import Segment
from .target import Target, Unit

if TYPE_CHECKING:
    import pandas
    import pyarrow

    from ..report.charts import Chart


BETWEEN_DTYPES = 4
"""Noise floors by which runs in two dtypes may differ: a whole step of the logits."""


@dataclass(frozen=True, eq=False)
class Difference:
    """What changed from one result to another, segment by segment: `b - a`.

    Each of the two adds up, so their difference does: `baseline + credits.sum(1)` is
    `final`, up to `completeness`. `iglens.diff` makes one out of any two results that
    can be compared.

    Attributes:
        a: The first result.
        b: The second one; its rows and segments are those of `a`, one to one.
        notes: What was left out or merged to get there.

    Raises:
        ArgumentError: If rows or segments are not one to one.
    """

    a: Attribution
    b: Attribution
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is not one to one."""
        keys = [[target.key for target in side.targets] for side in (self.a, self.b)]
        paths = [[s.place for s in side.segments] for side in (self.a, self.b)]
        if keys[0] != keys[1] or paths[0] != paths[1]:
            raise ArgumentError(
                "The two results are not of the same targets and segments in the same "
                "order; `iglens.diff` matches them."
            )

    @property
    def n_rows(self) -> int:
        """Number of compared pairs of rows."""
        return self.a.n_rows

    @property
    def unit(self) -> Unit:
        """Unit of both results."""
        return self.a.unit

    @property
    def units(self) -> tuple[str, ...]:
        """Unit of every row."""
        return self.a.units

    @property
    def targets(self) -> tuple[Target, ...]:
        """What is explained, one per row."""
        return self.a.targets

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The steps of the path, as `a` names them."""
        return self.a.segments

    @property
    def layers(self) -> tuple[int, ...]:
        """Layer each segment ends at."""
        return self.a.layers

    @property
    def levels(self) -> Float[np.ndarray, "rows points"]:
        """Difference of the levels."""
        return _less(self.b.levels, self.a.levels)

    @property
    def credits(self) -> Float[np.ndarray, "rows segments"]:
        """Difference of what each segment added; NaN where either is."""
        return _less(self.b.credits, self.a.credits)

    @property
    def writes(self) -> Float[np.ndarray, "rows segments"]:
        """Difference of what the blocks wrote; see `Attribution.writes`."""
        return _less(self.b.writes, self.a.writes)

    @property
    def baseline(self) -> Float[np.ndarray, " rows"]:
        """Difference of the first levels."""
        return self.levels[:, 0]

    @property
    def final(self) -> Float[np.ndarray, " rows"]:
        """Difference of the last levels."""
        return self.levels[:, -1]

    @property
    def completeness(self) -> Float[np.ndarray, " rows"]:
        """`sum(credits) - (final - baseline)`; see `Attribution.completeness`."""
        with np.errstate(invalid="ignore"):
            return self.credits.sum(1) - (self.final - self.baseline)

    @property
    def noise_floor(self) -> Float[np.ndarray, " rows"]:
        """Difference of two levels that is rounding: the sum of both noise floors.

        Runs in one dtype round alike; between two dtypes every rounding on the way
        differs, which is allowed `BETWEEN_DTYPES` times as much.
        """
        sides = self.a.provenance.model.dtype, self.b.provenance.model.dtype
        times = 1 if sides[0] == sides[1] else BETWEEN_DTYPES
        return times * (self.a.noise_floor + self.b.noise_floor)

    @property
    def beyond_noise(self) -> Bool[np.ndarray, "rows segments"]:
        """Credits that differ by more than rounding, or by nobody knows how much.

        A credit is the difference of two levels, so twice `noise_floor` is what
        rounding can do. True where a credit or the noise floor is not known.
        """
        limit = 2 * self.noise_floor[:, None]
        with np.errstate(invalid="ignore"):
            return ~(np.abs(self.credits) <= limit)

    def figure(
        self, kind: str | None = None, *, row: int = 0, theme: str = "light"
    ) -> "Chart":
        """A chart of where the two results part.

        Args:
            kind: "map" of all rows, or the paired "waterfall" of one; None for the
                natural one: a single row's waterfall, the map of several.
            row: Whose.
            theme: "light" or "dark".

        Raises:
            ArgumentError: If there is no such picture, row or theme.
        """
        from ..report.charts import difference_figure

        return difference_figure(self, kind, row=row, theme=theme)

    def to_arrow(self) -> "pyarrow.Table":
        """One line per row and segment; see `iglens.records.difference_table`."""
        from .difference_table import difference_table

        return difference_table(self)

    def to_pandas(self) -> "pandas.DataFrame":
        """`to_arrow`, as a pandas frame (needs pandas)."""
        return self.to_arrow().to_pandas()

    def to_json(self) -> dict[str, Any]:
        """The published JSON form, both results in full; NaN becomes null."""
        from ..storage.difference_form import difference_to_json

        return difference_to_json(self)

    def save(self, path: str | Path, file_format: str | None = None) -> None:
        """Write it: `.json`, `.csv`, `.parquet`; `.html`, `.md`; or as a picture.

        Args:
            path: Where to; `.svg`, `.png` and `.pdf` are the natural picture.
            file_format: One of them, without its dot, for a path that has another.

        Raises:
            OutputError: If the format is unknown or the place not writable.
        """
        from ..report.sheets import DIFFERENCE
        from ..storage.difference_form import DIFFERENCE_FORMATS, save_difference
        from .saving import save_record

        save_record(
            self,
            path,
            file_format,
            formats=DIFFERENCE_FORMATS,
            data=save_difference,
            pages=DIFFERENCE,
        )

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Any:
        """What notebooks show: the chart, and the same in words."""
        from ..report.notebook import chart_bundle

        return chart_bundle(self)

    def __str__(self) -> str:
        """What is compared, and one plain sentence per row."""
        from ..report.difference import summary

        return summary(self)


def _less(b: np.ndarray, a: np.ndarray) -> np.ndarray:
    """`b - a` in float64; infinity less itself is NaN."""
    with np.errstate(invalid="ignore"):
        return b.astype(np.float64) - a.astype(np.float64)


def diff(
    a: Attribution, b: Attribution, *, layers: Iterable[int] | None = None
) -> Difference:
    """The difference of two results, `b - a`, row by row and segment by segment.

    The results may be of two prompts, or of two models, revisions, dtypes or
    quantisations; nothing else may differ. Rows belong together if they have the same
    target (kind and token ids) at the same place: the same position if the texts are
    the same, else the same distance from the end of the prompt. The k-th of several
    such rows goes with the k-th. Rows without a counterpart are left out, and `notes`
    says so.

    Args:
        a: The result that is taken away.
        b: The result it is taken from.
        layers: Layers to coarsen both to; needed where their paths stop at others.

    Returns:
        Both results, reduced to what they share, and their difference.

    Raises:
        ArgumentError: If unit, baseline, lens, estimator, path or vocabulary differ,
            or no row has a counterpart; says which.
    """
    from .comparable import check_comparable, check_paths
    from .matching import matched

    check_comparable(a, b)
    notes = []
    if layers is not None:
        wanted = sorted(set(layers) - {0})  # which always stays
        before = a.segments, b.segments
        a, b = a.coarsen(wanted), b.coarsen(wanted)
        if before != (a.segments, b.segments):
            notes.append(f"Paths are taken through layers {list(a.layers)}.")
    check_paths(a, b)
    if a.components is not None or b.components is not None:
        notes.append(
            "What is inside the segments is not compared, only what it adds up to; "
            "each result keeps its own."
        )
    rows_a, rows_b, left_out = matched(a, b)
    return Difference(a.select(rows_a), b.select(rows_b), (*notes, *left_out))
