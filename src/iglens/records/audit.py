"""What really happens to a target when parts of the model are taken out."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from .attribution import Attribution
from .effects import Effects
from .segment import Segment
from .target import Unit

if TYPE_CHECKING:
    import pyarrow

    from ..report.charts import Chart

LARGE = 0.1
"""Share of a text's largest effect from which an effect is large."""

SMALL = 0.1
"""Share of an effect up to which a credit is small beside it."""


@dataclass(frozen=True, eq=False)
class Correlation:
    """Rank correlation of a method's numbers with the effects, text by text.

    Attributes:
        method: Whose numbers: "credit", "gate path", "update size", or a method's name.
        with_last: Whether the last layer is among the segments; there the credit is
            the skip effect by identity.
        per_text: Spearman's coefficient of every text; NaN where one side is constant.
        mean: Mean over the texts.
        low: 2.5% quantile of the mean, texts drawn again with replacement; NaN for one
            text.
        high: 97.5% quantile.
        null: Mean when credits are those of the other texts' targets, read on the same
            states; NaN where there is no other target.
        random: Mean of a model of the same class with random weights, its own numbers
            against its own effects; NaN if that was not asked for.
        reason: Why there are no numbers of some text; None if there are.
    """

    method: str
    with_last: bool
    per_text: Float[np.ndarray, " texts"]
    mean: float
    low: float
    high: float
    null: float = float("nan")
    random: float = float("nan")
    reason: str | None = None


@dataclass(frozen=True, eq=False)
class Curve:
    """Levels while segments are taken out, or put back, one after the other.

    Attributes:
        kind: "deletion" starts with the whole model, "insertion" with none of it.
        order: By which number, largest first: "credit", "effect", "update size"; or
            "random", the mean of several orders.
        levels: Level after 0, 1, … segments.
    """

    kind: str
    order: str
    levels: Float[np.ndarray, "texts steps"]

    @property
    def area(self) -> float:
        """Mean level over steps (trapezoids, width 1) and texts."""
        steps = (self.levels[:, 1:] + self.levels[:, :-1]) / 2
        return float(steps.mean())


FLOORS = 4
"""Noise floors that two readings of one state may differ by.

The floor is measured on one way to read, at the end. Here are two, at early layers.
"""


@dataclass(frozen=True, eq=False)
class Identities:
    """What agrees by construction if blocks are taken out and states read rightly.

    Attributes:
        layers: Layers that were tried; 0 is the embedding.
        readout: Level of the model with all later blocks skipped, less the readout's
            level at the layer.
        last: What is lost without the last block, less the credit of the last layer.
        noise_floor: Change of a level that is rounding; NaN if unknown.
    """

    layers: tuple[int, ...]
    readout: Float[np.ndarray, "texts layers"]
    last: Float[np.ndarray, " texts"]
    noise_floor: Float[np.ndarray, " texts"]

    @property
    def beyond(self) -> Bool[np.ndarray, " texts"]:
        """Where a level misses by more than rounding, or a difference by twice that.

        Rounding being `FLOORS` noise floors.
        """
        worst = np.abs(np.column_stack([self.readout, self.last / 2])).max(axis=1)
        return np.asarray(worst > FLOORS * self.noise_floor)


@dataclass(frozen=True)
class Invisible:
    """Work that the readout does not see: a large effect beside a small credit."""

    text: int
    segment: int
    effect: float
    credit: float


@dataclass(frozen=True, eq=False)
class Audit:
    """Credits beside effects, for one target in each of several texts.

    Attributes:
        effects: What happens when segments are taken out, one row for each text.
        sizes: Length of what each segment adds to the predicting state.
        identities: How well agrees what agrees by construction.
        correlations: How well the orders agree.
        curves: Levels along deletions and insertions, if asked for.
        gates: The gate path, if asked for.
        seed: What random orders and drawn texts were made from.
    """

    effects: Effects
    sizes: Float[np.ndarray, "texts segments"]
    identities: Identities
    correlations: tuple[Correlation, ...] = ()
    curves: tuple[Curve, ...] = ()
    gates: Effects | None = None
    seed: int = 0

    @property
    def results(self) -> tuple[Attribution, ...]:
        """What the readout says, one row for each text."""
        return self.effects.results

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The steps of the path."""
        return self.results[0].segments

    @property
    def unit(self) -> Unit:
        """Unit of credits and effects."""
        return self.results[0].unit

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences a reader must see."""
        said = self.effects.warnings + (self.gates.warnings if self.gates else ())
        return tuple(dict.fromkeys((*said, *self._not_identical())))

    def _not_identical(self) -> Iterator[str]:
        """Sentences for texts in which an identity does not hold."""
        found = self.identities
        for text in np.flatnonzero(found.beyond).tolist():
            yield (
                f"Skipping blocks and reading states disagree for "
                f"{self.effects.targets[text].name!r} by "
                f"{np.abs(found.readout[text]).max():.1g} at a layer and "
                f"{abs(found.last[text]):.1g} in the last credit, where "
                f"{found.noise_floor[text]:.1g} is rounding: effects and credits of "
                "this model may not be about the same states."
            )

    @property
    def credits(self) -> Float[np.ndarray, "texts segments"]:
        """What the readout credits every segment with."""
        return self.effects.credits

    @property
    def ledger(self) -> Float[np.ndarray, "texts segments"] | None:
        """Gate path minus credit: who prepares (positive), who cashes in; sums to 0."""
        return None if self.gates is None else self.gates.ledger

    @property
    def invisible(self) -> tuple[Invisible, ...]:
        """Large effects beside small credits, by text and size.

        Large: at least a tenth of the text's largest effect. Small: at most a tenth of
        the effect.
        """
        sizes = np.abs(self.effects.effects)
        large = sizes >= LARGE * sizes.max(axis=1, keepdims=True)
        found = large & (sizes > 0) & (np.abs(self.credits) <= SMALL * sizes)
        return tuple(
            Invisible(
                text,
                segment,
                float(self.effects.effects[text, segment]),
                float(self.credits[text, segment]),
            )
            for text in range(len(self.results))
            for segment in np.argsort(-sizes[text], kind="stable").tolist()
            if found[text, segment]
        )

    def figure(self, *, theme: str = "light") -> "Chart":
        """A chart of credits beside effects by layer, and of how far orders agree.

        Args:
            theme: "light" or "dark".

        Raises:
            ArgumentError: If there is no such theme.
        """
        from ..report.charts import audit_figure

        return audit_figure(self, theme=theme)

    def to_arrow(self) -> "pyarrow.Table":
        """One line per text and segment."""
        from .audit_table import audit_table

        return audit_table(self)

    def to_json(self) -> dict[str, Any]:
        """The published JSON form; NaN and infinity become null."""
        from ..storage.audit_form import audit_to_json

        return audit_to_json(self)

    def save(self, path: str | Path, file_format: str | None = None) -> None:
        """Write it: `.json`, `.csv`, `.parquet`; `.html`, `.md`; or as a picture.

        Args:
            path: Where to; `.svg`, `.png` and `.pdf` are pictures.
            file_format: One of them, without its dot, for a path that has another.

        Raises:
            OutputError: If the format is unknown or the place not writable.
        """
        from ..report.sheets import AUDIT
        from ..storage.audit_form import AUDIT_FORMATS, save_audit
        from .saving import save_record

        save_record(
            self,
            path,
            file_format,
            formats=AUDIT_FORMATS,
            data=save_audit,
            pages=AUDIT,
        )

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Any:
        """What notebooks show: the chart, and the same in words."""
        from ..report.notebook import chart_bundle

        return chart_bundle(self)

    def __str__(self) -> str:
        """The correlations, and the invisible work."""
        from ..report.audit import lines

        return "\n".join(lines(self))
