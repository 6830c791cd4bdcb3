"""Several methods on the same token: what each says, what it adds up to, its cost."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from ..errors import ArgumentError, OutputError
from .contributions import Contributions, Cost, Entry, Kind, Reading, per_layer
from .effects import Effects
from .provenance import Provenance
from .ranks import spearman
from .target import Target

if TYPE_CHECKING:
    from ..report.charts import Chart

__all__ = [
    "CONVERSION",
    "Audited",
    "Comparison",
    "Contributions",
    "Cost",
    "Entry",
    "Reading",
    "Summary",
]


@dataclass(frozen=True, eq=False)
class Audited:
    """What happens to the token when layers are skipped, if that could be had.

    Attributes:
        effects: One for every layer, at all tokens; None if there are none.
        reason: Why not; None if there are.
        cost: What they took, beside what the methods did.
    """

    effects: Effects | None
    reason: str | None
    cost: Cost


@dataclass(frozen=True)
class Summary:
    """One method as a line of the table; every number but `own_error` in probability.

    Attributes:
        name: What it is asked for by.
        title: What to show.
        kind: "contributions" or "reading"; None if it cannot be had here.
        unit: Unit of the method's own numbers.
        total: Sum over all layers, or their parts.
        change: Change of probability between the ends of the method's path.
        error: `total - change`.
        own_error: What the method's sum misses of its own promise, in its unit; None
            for a reading, which promises no sum.
        monotone: Whether no layer goes against the direction of the whole by more than
            rounding.
        peak: The layer with the largest credit, or rise of level, in absolute value.
        agreement: Spearman's correlation of what layers are given with what the token
            loses when they are skipped; NaN if not known.
        agreement_without_last: The same without the last layer.
        conversion: How numbers in another unit became probabilities.
        reason: Why it cannot be had.
        cost: What it took.
    """

    name: str
    title: str
    kind: Kind | None
    unit: str | None
    total: float
    change: float
    error: float
    own_error: float | None
    monotone: bool | None
    peak: int | None
    agreement: float
    agreement_without_last: float
    conversion: str | None
    reason: str | None
    cost: Cost


CONVERSION = (
    "p - sigmoid(log-odds - c), what the target would lose if the credit were taken "
    "out of its logit, the others' kept"
)
"""How a credit in logits becomes one in probability."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `iglens.compare` found: methods side by side, on one token of one text.

    Attributes:
        token_texts: The text, token by token.
        position: Index of the predicted token.
        target: What is explained.
        n_layers: Number of blocks.
        baseline: Probability that the readout gives the embedding.
        final: Probability that it gives the last state.
        log_odds: Log-odds of the last state.
        noise_floor: Change of a probability that is rounding.
        fidelity: Total variation between the readout and the model's own distribution.
        entries: The methods, in the order they were asked for.
        provenance: Where all this comes from.
        audited: What happens without each layer; None if that was not asked for.
        warnings: Sentences a reader must see.
    """

    token_texts: tuple[str, ...]
    position: int
    target: Target
    n_layers: int
    baseline: float
    final: float
    log_odds: float
    noise_floor: float
    fidelity: float
    entries: tuple[Entry, ...]
    provenance: Provenance
    audited: Audited | None = None
    warnings: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Entry:
        """A method by its name.

        Raises:
            ArgumentError: If it is not among these.
        """
        for entry in self.entries:
            if entry.name == name:
                return entry
        known = ", ".join(entry.name for entry in self.entries)
        raise ArgumentError(f"There is no method {name!r} here, only {known}.")

    @property
    def change(self) -> float:
        """Change of probability from the embedding to the last state."""
        return self.final - self.baseline

    @property
    def table(self) -> tuple[Summary, ...]:
        """A line for every method."""
        return tuple(self._summary(entry) for entry in self.entries)

    def converted(self, found: Contributions | Reading) -> Float[np.ndarray, " parts"]:
        """A method's numbers in probability; see `CONVERSION`.

        Raises:
            ArgumentError: If they are in a unit that says nothing of a probability.
        """
        if found.unit == "probability":
            return found.values
        if found.unit != "logit" or found.kind == "reading":
            raise ArgumentError(
                f"A {found.kind} in {found.unit} cannot be turned into probabilities; "
                "only credits in logits can."
            )
        without = _sigmoid(self.log_odds - found.values)
        return _sigmoid(np.full_like(without, self.log_odds)) - without

    def by_layer(self, found: Contributions | Reading) -> dict[int, float]:
        """A method's numbers in its own unit, parts of a layer added up."""
        if isinstance(found, Reading):
            return dict(zip(found.layers, found.values.tolist(), strict=True))
        return per_layer(found, found.values, 0.0)

    @property
    def skip_effects(self) -> dict[int, float]:
        """What the token loses when a layer is skipped, by layer; empty if unknown."""
        if self.audited is None or self.audited.effects is None:
            return {}
        effects = self.audited.effects
        layers = (segment.layer for segment in effects.segments)
        return dict(zip(layers, effects.effects[0].tolist(), strict=True))

    def agreement(
        self, found: Contributions | Reading, *, with_last: bool = True
    ) -> float:
        """Spearman's correlation of what layers are given with skip effects.

        Layers are given credits in the method's own unit, parts of a layer added up;
        of a reading the rise of its level.

        Args:
            found: What a method says.
            with_last: Whether the last layer counts; there the readout's credit is the
                skip effect by identity.

        Returns:
            NaN without an audit, if a layer is missing, or where one side is constant.
        """
        effects = self.skip_effects
        given = per_layer(found, found.values, self.baseline)
        layers = sorted(effects)[: None if with_last else -1]
        if not layers or not given.keys() >= set(layers):
            return float("nan")
        pairs = [[side[layer] for layer in layers] for side in (given, effects)]
        return spearman(*map(np.array, pairs))

    def _summary(self, entry: Entry) -> Summary:
        """One line of the table."""
        found = entry.found
        if found is None:
            return Summary(
                entry.name, entry.title, None, None, np.nan, np.nan, np.nan, None,
                None, None, np.nan, np.nan, None, entry.reason, entry.cost,
            )  # fmt: skip
        values = self.converted(found)
        change, own_error = self.change, None
        if isinstance(found, Contributions):
            change, own_error = self.final - found.start, found.missed
        steps = per_layer(found, values, self.baseline)
        return Summary(
            entry.name,
            entry.title,
            found.kind,
            found.unit,
            total=float(values.sum()),
            change=change,
            error=float(values.sum()) - change,
            own_error=own_error,
            monotone=_is_monotone(list(steps.values()), change, self.noise_floor),
            peak=max(steps, key=lambda layer: abs(steps[layer]), default=None),
            agreement=self.agreement(found),
            agreement_without_last=self.agreement(found, with_last=False),
            conversion=None if found.unit == "probability" else CONVERSION,
            reason=None,
            cost=entry.cost,
        )

    def figure(self, *, theme: str = "light") -> "Chart":
        """A chart with a panel for every method.

        Args:
            theme: "light" or "dark".

        Raises:
            ArgumentError: If there is no such theme.
        """
        from ..report.charts import comparison_figure

        return comparison_figure(self, theme=theme)

    def to_json(self) -> dict[str, Any]:
        """The published JSON form; NaN and infinity become null."""
        from ..storage.comparison_form import comparison_to_json

        return comparison_to_json(self)

    def text(self, file_format: str) -> str:
        """The comparison as a page, a table or a document.

        Args:
            file_format: "html", "md", "csv" (the table) or "json" (all of it).

        Raises:
            OutputError: If there is no such format.
        """
        from ..report.sheets import COMPARISON
        from ..storage import comparison_form as form

        writers = {
            "html": COMPARISON[".html"],
            "md": COMPARISON[".md"],
            "csv": form.csv_text,
            "json": form.json_text,
        }
        if file_format not in writers:
            raise OutputError(
                f"A comparison has no form {file_format!r}, only {', '.join(writers)}."
            )
        return writers[file_format](self)

    def save(self, path: str | Path, file_format: str | None = None) -> None:
        """Write it, also as a picture (`.svg`, `.png`, `.pdf`).

        The format follows from the extension unless it is named.

        Raises:
            OutputError: If the format is unknown or the place not writable.
        """
        from ..report.sheets import COMPARISON
        from ..storage.comparison_form import FORMATS, save_comparison
        from .saving import save_record

        save_record(
            self,
            path,
            file_format,
            formats=FORMATS,
            data=save_comparison,
            pages=COMPARISON,
        )

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Any:
        """What notebooks show: the chart, and the same in words."""
        from ..report.notebook import chart_bundle

        return chart_bundle(self)

    def __str__(self) -> str:
        """The table as Markdown."""
        from ..report.comparison import markdown_table

        return markdown_table(self)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    """The logistic function, without overflow."""
    return np.exp(-np.logaddexp(0.0, -values))


def _is_monotone(steps: list[float], change: float, noise: float) -> bool:
    """Whether no step goes the other way by more than rounding."""
    sign = 1.0 if change >= 0 else -1.0
    return all(sign * step >= -noise for step in steps)
