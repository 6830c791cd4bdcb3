"""Several baselines: their mean, and what depends on which of them was taken."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from ..errors import ArgumentError
from .attribution import Attribution
from .components import Components

if TYPE_CHECKING:
    from ..report.charts import Chart


def averaged(results: Sequence[Attribution]) -> Attribution:
    """The mean of results that differ in their baseline only.

    Credits still add up: the mean of sums is the sum of means. Only the first point
    and the first segment can differ; rank, divergence and top tokens mean nothing at a
    start that is several states, and count as not computed there.

    Raises:
        ArgumentError: If the results are not of the same rows and segments.
    """
    first = results[0]
    for other in results[1:]:
        if other.segments != first.segments or other.targets != first.targets:
            raise ArgumentError(
                f"The baselines {first.baseline_kind!r} and {other.baseline_kind!r} "
                "give paths of other segments; they cannot be averaged."
            )
    merged = {
        name: np.mean([getattr(result, name) for result in results], axis=0)
        for name in ("levels", "credits", "writes")
    }
    for name, values in merged.items():  # bit for bit what every one of them has
        start = 1 if len(values[0]) else 0
        values[:, start:] = getattr(first, name)[:, start:]
    unknown = {"rank": 0, "lens_kl": np.nan, "top1": False, "top_probabilities": np.nan}
    for name, value in unknown.items():
        merged[name] = getattr(first, name).copy()
        merged[name][:, 0] = value
    kinds = ", ".join(result.baseline_kind for result in results)
    return replace(
        first,
        **merged,
        components=_components(first, merged["credits"]),
        baseline_kind=f"mean of {kinds}",
        flags=tuple(dict.fromkeys(flag for r in results for flag in r.flags)),
        warnings=tuple(dict.fromkeys(said for r in results for said in r.warnings)),
    )


def _components(
    first: Attribution, credits: Float[np.ndarray, "rows segments"]
) -> Components | None:
    """What is inside the segments: all that moved is what nothing inside is of."""
    inside = first.components
    if inside is None:
        return None
    with np.errstate(invalid="ignore"):  # flagged where they are not finite
        moved = credits - first.credits
    return replace(inside, others=inside.others + moved)


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """The same rows from several baselines: only the first segment moves.

    Attributes:
        targets: Names of the rows' targets.
        positions: Positions of the rows.
        kinds: Names of the baselines.
        unit: Unit of rows of tokens.
        units: Unit of every row.
        baseline: Level at each baseline.
        first: Credit of the first segment, which is the embedding's own.
        moved: Largest difference of any later credit from that with the first
            baseline: rounding, since nothing after the embedding depends on it.
    """

    targets: tuple[str, ...]
    positions: tuple[int, ...]
    kinds: tuple[str, ...]
    unit: str
    units: tuple[str, ...]
    baseline: Float[np.ndarray, "rows kinds"]
    first: Float[np.ndarray, "rows kinds"]
    moved: Float[np.ndarray, " kinds"]

    @classmethod
    def of(cls, results: Sequence[Attribution]) -> "Sensitivity":
        """The comparison of results that differ in their baseline only."""
        start = results[0]
        later = [result.credits[:, 1:] for result in results]
        return cls(
            targets=tuple(target.name for target in start.targets),
            positions=tuple(start.positions.tolist()),
            kinds=tuple(result.baseline_kind for result in results),
            unit=start.unit,
            units=tuple(start.units),
            baseline=np.stack([result.baseline for result in results], 1),
            first=np.stack([result.credits[:, 0] for result in results], 1),
            moved=np.array(
                [np.abs(credits - later[0]).max(initial=0.0) for credits in later]
            ),
        )

    def figure(self, *, row: int = 0, theme: str = "light") -> "Chart":
        """A chart of where a row starts from every baseline, and its first step.

        Args:
            row: Whose.
            theme: "light" or "dark".

        Raises:
            ArgumentError: If there is no such row or theme.
        """
        from ..report.charts import sensitivity_figure

        return sensitivity_figure(self, row=row, theme=theme)

    def to_json(self) -> dict[str, object]:
        """The published JSON form; NaN and infinity become null."""
        from ..storage.plain import nulled

        return {
            "schema": "iglens.sensitivity/1",
            "targets": list(self.targets),
            "positions": list(self.positions),
            "baselines": list(self.kinds),
            "unit": self.unit,
            "units": list(self.units),
            "baseline": nulled(self.baseline),
            "first": nulled(self.first),
            "moved": nulled(self.moved),
        }

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Any:
        """What notebooks show: the chart, and the same in words."""
        from ..report.notebook import chart_bundle

        return chart_bundle(self)

    def __str__(self) -> str:
        """A small table per row."""
        from ..report.text import sensitivity

        return sensitivity(self)
