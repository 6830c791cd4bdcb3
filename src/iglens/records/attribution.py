"""The result: what each layer contributed to the probability of each token."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from ..depths import Depths, depths
from .components import Components
from .flag import Flag
from .provenance import Provenance, ReadoutInfo
from .segment import Segment
from .target import Target, Unit

if TYPE_CHECKING:
    import pandas
    import pyarrow

    from ..report.charts import Chart
    from .answer import Answer
    from .joint import Sharing


@dataclass(frozen=True, eq=False)
class Attribution:
    """Credit of every segment for every row's target; NumPy, frozen.

    The one promise: `baseline + credits.sum(1)` is `final`, up to `completeness`.
    A *row* is a (position, target) pair of one text, a *point* a state on the path
    (the first is the baseline), a *segment* the step between two neighbours.

    Attributes:
        token_ids: Every token of the text.
        token_texts: The same tokens, decoded one by one.
        positions: Index of the predicted token; it may equal the length of the text.
        targets: What is explained, one per row.
        segments: The steps of the path, named after the layer they end at.
        levels: The target's level at every point, in the row's unit; an upper bound
            where it was `pruned`.
        credits: What each segment added, in the row's unit; NaN next to a level that
            is not finite.
        writes: The part of each credit that the block wrote: the change of level from
            the segment's start to its end, both read through the map of the layer it
            ends at. All of it without a lens; NaN for the gradient estimator.
        top1: Whether the target is the readout's arg-max (lowest id wins a tie).
        pruned: Whether the level is an upper bound, certified below the tolerance
            (`readout.pruned_below`): the true one is between 0 and that. Never so at
            the baseline and the final point. Depths and churn move by at most the
            tolerance at each such point.
        model_value: The target's level in the model's own output, in `unit`.
        fidelity: Total variation between the readout of the last state, in the
            model's own dtype, and the model's own distribution; NaN if unknown. Where
            `readout.measure` is "logit", the largest difference of a logit instead.
        log_fidelity: `|log f(y) - log p(y)|` between the same two; NaN if unknown.
        rank: Place of the target among all tokens, 1 for the most probable; 0 where
            it was not computed.
        lens_kl: `KL(final || point)` of the readout's distributions in nats; NaN
            where it was not computed.
        top_ids: The most probable tokens at every point; no columns where they were
            not computed.
        top_probabilities: Their probabilities.
        vocabulary: Texts of the ids in `top_ids`.
        unit: Unit of levels and credits, but for rows with a unit of their own (see
            `units`); logarithms are natural.
        baseline_kind: Name of the first point.
        estimator: Name of the rule that gave the credits.
        lens: Name of the translators; "logit" for none.
        noise_floor: Change of a level that is rounding, per row; NaN if unknown.
        readout: How the levels were read and verified.
        flags: Cells that are not numbers to rely on.
        warnings: Sentences a reader must see.
        components: What is inside the segments, if it was asked for.
        provenance: Where all this comes from.
    """

    token_ids: Int[np.ndarray, " text"]
    token_texts: tuple[str, ...]
    positions: Int[np.ndarray, " rows"]
    targets: tuple[Target, ...]
    segments: tuple[Segment, ...]
    levels: Float[np.ndarray, "rows points"]
    credits: Float[np.ndarray, "rows segments"]
    writes: Float[np.ndarray, "rows segments"]
    top1: Bool[np.ndarray, "rows points"]
    pruned: Bool[np.ndarray, "rows points"]
    model_value: Float[np.ndarray, " rows"]
    fidelity: Float[np.ndarray, " rows"]
    log_fidelity: Float[np.ndarray, " rows"]
    rank: Int[np.ndarray, "rows points"]
    lens_kl: Float[np.ndarray, "rows points"]
    top_ids: Int[np.ndarray, "rows points top"]
    top_probabilities: Float[np.ndarray, "rows points top"]
    vocabulary: dict[int, str]
    unit: Unit
    baseline_kind: str
    estimator: str
    lens: str
    noise_floor: Float[np.ndarray, " rows"]
    readout: ReadoutInfo
    provenance: Provenance
    flags: tuple[Flag, ...] = ()
    warnings: tuple[str, ...] = field(default=())
    components: Components | None = None

    @property
    def n_rows(self) -> int:
        """Number of explained (position, target) pairs."""
        return len(self.positions)

    @property
    def layers(self) -> tuple[int, ...]:
        """Layer each segment ends at."""
        return tuple(segment.layer for segment in self.segments)

    @property
    def point_layers(self) -> tuple[int | None, ...]:
        """Layer each point is the state of; None for a baseline off the path."""
        return (self.segments[0].after, *self.layers)

    @property
    def baseline(self) -> Float[np.ndarray, " rows"]:
        """Level of the first point."""
        return self.levels[:, 0]

    @property
    def final(self) -> Float[np.ndarray, " rows"]:
        """Level of the last state."""
        return self.levels[:, -1]

    @property
    def units(self) -> tuple[str, ...]:
        """Unit of every row: `unit`, or that of a scalar of the whole distribution."""
        return tuple(target.unit(self.unit) for target in self.targets)

    @property
    def translations(self) -> Float[np.ndarray, "rows segments"]:
        """The part of each credit that the lens changed: credits minus writes."""
        return self.credits - self.writes

    @property
    def unsigned(self) -> Bool[np.ndarray, "rows segments"]:
        """Credits that cannot be told from 0: next to a pruned point, both ends small.

        Below `readout.pruned_below` in size, and of either sign.
        """
        small = self.pruned | (self.levels < self.readout.pruned_below)
        beside = self.pruned[:, :-1] | self.pruned[:, 1:]
        return beside & small[:, :-1] & small[:, 1:]

    @property
    def completeness(self) -> Float[np.ndarray, " rows"]:
        """`sum(credits) - (final - baseline)`.

        Rounding for the observed estimator, which adds up by construction; a real
        error of integration for the gradient one.
        """
        with np.errstate(invalid="ignore"):  # -inf - -inf is flagged, not warned of
            return self.credits.sum(1) - (self.final - self.baseline)

    @property
    def precision_gap(self) -> Float[np.ndarray, " rows"]:
        """`|final - model_value|`: what the model's own dtype costs."""
        with np.errstate(invalid="ignore"):
            return np.abs(self.final - self.model_value)

    @cached_property
    def depths(self) -> tuple[Depths, ...]:
        """The depths of every row, on the path through whole layers."""
        path = self.by_layer
        return tuple(
            depths(
                path.levels[row],
                path.credits[row],
                path.top1[row],
                path.point_layers,
                noise_floor=float(np.nan_to_num(path.noise_floor[row])),
            )
            for row in range(self.n_rows)
        )

    @cached_property
    def by_layer(self) -> "Attribution":
        """The same result with the parts of every block added up."""
        if not any(segment.is_part for segment in self.segments):
            return self
        return self.coarsen(self.layers)

    def coarsen(self, layers: Iterable[int]) -> "Attribution":
        """The same result on a path through fewer layers; credits are summed.

        With the observed estimator this equals what attribution along the coarse
        path gives, without reading again (unless the baseline depends on the path,
        as "paper-mean" does). The last layer, and the end of the embedding's own
        segment, are always kept.

        Args:
            layers: Layers to keep, out of `self.layers`.

        Raises:
            ArgumentError: If a layer is not on the path.
        """
        from .views import coarsened

        return coarsened(self, layers)

    def select(self, rows: Sequence[int]) -> "Attribution":
        """The same result for some of the rows, in the given order.

        Args:
            rows: Which rows, counted as in a list: -1 is the last.

        Raises:
            ArgumentError: If there is no such row.
        """
        from .views import selected

        return selected(self, rows)

    def answer(self, sharing: "Sharing" = "logarithmic") -> "Answer":
        """The rows as one answer: its joint probability and each token's share of it.

        Args:
            sharing: See `Answer.of`.

        Raises:
            ArgumentError: If the rows are not the tokens of one answer.
        """
        from .answer import Answer

        return Answer.of(self, sharing)

    def to_arrow(self) -> "pyarrow.Table":
        """One line per row and segment; see `iglens.records.table`."""
        from .table import tidy_table

        return tidy_table(self)

    def to_pandas(self) -> "pandas.DataFrame":
        """`to_arrow`, as a pandas frame (needs pandas)."""
        return self.to_arrow().to_pandas()

    def to_json(self) -> dict[str, Any]:
        """The published JSON form; NaN and infinity become null."""
        from ..storage import attribution_to_json

        return attribution_to_json(self)

    def save(self, path: str | Path) -> None:
        """Write the result; the format follows from the extension.

        Args:
            path: `.safetensors` or `.json` (both complete), `.csv` or `.parquet`
                (the tidy table), `.html` (a page complete in itself), `.md`, or the
                natural picture as `.svg`, `.png` or `.pdf`.

        Raises:
            OutputError: If the extension is unknown or the place not writable.
        """
        from ..report.documents import writers
        from ..storage import save

        save(self, Path(path), also=writers())

    def figure(
        self, kind: str | None = None, *, row: int = 0, theme: str = "light"
    ) -> "Chart":
        """A chart of this result, which shows itself in notebooks.

        Args:
            kind: Of all rows: "map" (credits by token and layer), "levels", "onsets"
                (histograms of depths). Of one: "waterfall", "trajectory" (against its
                rivals), "components" (the largest parts), "heads", "sources". None for
                the natural one: a single row's waterfall, the map of several.
            row: The row, for a picture of one.
            theme: "light" or "dark".

        Returns:
            A Vega-Altair chart, with its description for who cannot see it; `.save`
            writes it, `.properties` and `.to_dict` change it.

        Raises:
            ArgumentError: If there is no such picture, row or theme, or the result
                lacks what the picture shows.
        """
        from ..report.charts import attribution_figure

        return attribution_figure(self, kind, row=row, theme=theme)

    @classmethod
    def load(cls, path: str | Path) -> "Attribution":
        """Read what `save` wrote as `.safetensors` or `.json`.

        The former gives every bit back. The latter gives every finite number back, as
        float64, and NaN for infinity; `flags` says where.

        Raises:
            ArtifactError: If the file is not a complete, undamaged result.
        """
        from ..storage import load

        return load(Path(path))

    def __str__(self) -> str:
        """One plain sentence per row."""
        from ..report.text import summary

        return summary(self)

    def _repr_html_(self) -> str:
        """The table alone, for whoever asks for nothing else."""
        return self._repr_mimebundle_()["text/html"]

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> dict[str, str]:
        """What notebooks show: a table, and plain text where there are no tables."""
        from ..report.html import mime_bundle

        return mime_bundle(self)
