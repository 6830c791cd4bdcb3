"""Two splits of a change of log-odds: whose logits moved, and how they moved."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from .subject import Subject
from .table import utf8

if TYPE_CHECKING:
    import pyarrow

    from ..report.charts import Chart

CENTRING = "mean over the vocabulary's finite logits"

SCALE = "standard deviation of the centred logits"


@dataclass(frozen=True, eq=False)
class Promotion:
    r"""Was the target promoted or its rivals demoted; sharper, or another preference?

    In log-odds, with logits `z'` centred by their mean over the vocabulary,

        level = LSE_S(z') - LSE_{not S}(z'),

    so a credit is what the target's own centred logit gained (*promotion*) plus what
    its rivals' lost (*competition*). Logits mean nothing but for their differences:
    that the mean over the vocabulary stands still is a convention, named in
    `centring`. With the scale `s` of the centred logits and their direction `u = z'/s`,
    the same credit is the change of `s` at fixed `u` (*temperature*) plus the change of
    `u` at fixed `s` (*preference*), the average over both orders; `interaction` is by
    how much the orders differ.

    All numbers but `mean` and `spread` are log-odds, in nats.

    Attributes:
        subject: What the rows and segments are.
        levels: Log-odds of the target at every point.
        own: `LSE_S(z')`: the centred logit of the target.
        rivals: `LSE_{not S}(z')`: that of all others together.
        mean: What was subtracted from the logits.
        spread: The scale `s`.
        temperature: Part of each credit that the scale made.
        preference: Part that the direction made; both are NaN next to a state whose
            logits are all equal, which has no direction.
        interaction: Temperature after the direction had changed, less before.
    """

    subject: Subject
    levels: Float[np.ndarray, "rows points"]
    own: Float[np.ndarray, "rows points"]
    rivals: Float[np.ndarray, "rows points"]
    mean: Float[np.ndarray, "rows points"]
    spread: Float[np.ndarray, "rows points"]
    temperature: Float[np.ndarray, "rows segments"]
    preference: Float[np.ndarray, "rows segments"]
    interaction: Float[np.ndarray, "rows segments"]

    @property
    def centring(self) -> str:
        """The convention behind `mean`, in words."""
        return CENTRING

    @property
    def scale(self) -> str:
        """The convention behind `spread`, in words."""
        return SCALE

    @property
    def unit(self) -> str:
        """Always "log_odds"."""
        return "log_odds"

    @property
    def credits(self) -> Float[np.ndarray, "rows segments"]:
        """What each segment added to the target's log-odds."""
        return _steps(self.levels)

    @property
    def promotion(self) -> Float[np.ndarray, "rows segments"]:
        """What the target's own centred logit gained."""
        return _steps(self.own)

    @property
    def competition(self) -> Float[np.ndarray, "rows segments"]:
        """What the rivals' centred logits lost: positive where they were demoted."""
        return -_steps(self.rivals)

    @property
    def completeness(self) -> dict[str, Float[np.ndarray, " rows"]]:
        """What the sums of both splits over a path miss its whole change by."""
        with np.errstate(invalid="ignore"):
            change = self.levels[:, -1] - self.levels[:, 0]
            return {
                "promotion": (self.promotion + self.competition).sum(1) - change,
                "temperature": (self.temperature + self.preference).sum(1) - change,
            }

    def figure(self, *, row: int = 0, theme: str = "light") -> "Chart":
        """A chart of both splits of a target's log-odds, layer by layer.

        Args:
            row: Whose.
            theme: "light" or "dark".

        Raises:
            ArgumentError: If there is no such row or theme.
        """
        from ..report.charts import promotion_figure

        return promotion_figure(self, row=row, theme=theme)

    def to_arrow(self) -> "pyarrow.Table":
        """One line per row and segment, log-odds in nats.

        The columns: position, target, layer, component, level (at the segment's end),
        credit, promotion and competition, temperature and preference (each pair adds
        up to the credit), interaction, spread (at the segment's end), row.
        """
        import pyarrow

        subject, string = self.subject, pyarrow.string()
        n_rows, n_segments = self.temperature.shape
        rows = np.repeat(np.arange(n_rows), n_segments)
        names = pyarrow.array([utf8(t.name) for t in subject.targets], string)
        parts = [segment.part for segment in subject.segments] * n_rows
        splits = ("promotion", "competition", "temperature", "preference")
        return pyarrow.table(
            {
                "position": subject.positions.astype(np.int64)[rows],
                "target": names.take(pyarrow.array(rows)),
                "layer": np.tile(np.array(subject.layers, np.int64), n_rows),
                "component": pyarrow.array(parts, string),
                "level": self.levels[:, 1:].ravel(),
                "credit": self.credits.ravel(),
                **{name: getattr(self, name).ravel() for name in splits},
                "interaction": self.interaction.ravel(),
                "spread": self.spread[:, 1:].ravel(),
                "row": rows,
            }
        )

    def to_json(self) -> dict[str, Any]:
        """The published JSON form; NaN and infinity become null."""
        from ..storage import promotion_to_json

        return promotion_to_json(self)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Any:
        """What notebooks show: the chart, and the same in words."""
        from ..report.notebook import chart_bundle

        return chart_bundle(self)

    def __str__(self) -> str:
        """Per row both splits of the whole change, then of the layers that matter."""
        from ..report.promotion import summary

        return summary(self)


def _steps(levels: Float[np.ndarray, "rows points"]) -> np.ndarray:
    """Differences along the path; NaN where a level is not finite."""
    return np.diff(np.where(np.isfinite(levels), levels, np.nan), axis=1)
