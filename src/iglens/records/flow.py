"""Rival flows: which tokens gained and lost at each layer, and who gave to whom."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from .subject import Subject

if TYPE_CHECKING:
    import pyarrow

    from ..report.charts import Chart


@dataclass(frozen=True, eq=False)
class Flow:
    """Where a target's probability came from, and where it went.

    A softmax only moves probability about: over the whole vocabulary a segment's
    credits sum to zero. So whatever the target gains others lose, and along a path
    one can say who. `gains` and `losses` are differences of levels and depend on no
    path. What flows from a token to the target is

        F(v -> y) = integral of p_y p_v (dz_y/dt - dz_v/dt) dt

    along the straight segment: antisymmetric, and summing to the target's change over
    all `v`. It describes the softmax's exchange along this path; other paths between
    the same states exchange otherwise.

    Everything is in probability. Unused places of a list hold the id -1 and 0.

    Attributes:
        subject: What the rows and segments are.
        levels: Probability of the target at every point.
        gain_ids: Tokens that gained most over each segment, most first; the target may
            be among them.
        gains: What they gained, positive.
        loss_ids: Tokens that lost most, most first.
        losses: What they lost, negative.
        mass: Sum of the probabilities of all tokens at every point, each computed with
            a normaliser from an earlier pass: 1 up to rounding.
        sender_ids: Tokens that gave most to the target.
        sent: What they gave, positive.
        receiver_ids: Tokens that took most from it.
        received: What they took, negative.
        others: Flow from all tokens that are not listed; NaN where no flow was
            integrated, as in the four before.
        residual: Largest part of any token's change that the integral missed before it
            was closed; NaN where none was integrated.
        disagreement: By how much two rules of integration differ in any token's flow.
        drift: Change of the target's level less its change between the rows of logits
            that were integrated: rounding, closed too.
        nodes: Rows of logits it took; 0 where no flow was integrated.
        tolerance: What residual and disagreement may be; flows beyond are withheld
            and flagged "uncertified".
        rule: Name of the rule of integration.
        vocabulary: Texts of all ids named.
    """

    subject: Subject
    levels: Float[np.ndarray, "rows points"]
    gain_ids: Int[np.ndarray, "rows segments top"]
    gains: Float[np.ndarray, "rows segments top"]
    loss_ids: Int[np.ndarray, "rows segments top"]
    losses: Float[np.ndarray, "rows segments top"]
    mass: Float[np.ndarray, "rows points"]
    sender_ids: Int[np.ndarray, "rows segments top"]
    sent: Float[np.ndarray, "rows segments top"]
    receiver_ids: Int[np.ndarray, "rows segments top"]
    received: Float[np.ndarray, "rows segments top"]
    others: Float[np.ndarray, "rows segments"]
    residual: Float[np.ndarray, "rows segments"]
    disagreement: Float[np.ndarray, "rows segments"]
    drift: Float[np.ndarray, "rows segments"]
    nodes: Int[np.ndarray, "rows segments"]
    tolerance: float
    rule: str
    vocabulary: dict[int, str]

    @property
    def unit(self) -> str:
        """Always "probability"."""
        return "probability"

    @property
    def credits(self) -> Float[np.ndarray, "rows segments"]:
        """What each segment added to the target's probability."""
        return np.diff(self.levels, axis=1)

    @property
    def integrated(self) -> Bool[np.ndarray, "rows segments"]:
        """Where the flow is known."""
        return np.isfinite(self.others)

    @property
    def vocabulary_sum(self) -> Float[np.ndarray, "rows segments"]:
        """Sum of every token's credit: 0, up to the rounding of `mass`."""
        return np.diff(self.mass, axis=1)

    @property
    def completeness(self) -> Float[np.ndarray, "rows segments"]:
        """Flows, listed and others, less the target's credit; NaN where not known."""
        total = self.sent.sum(2) + self.received.sum(2) + self.others
        return total - self.credits

    def figure(self, *, row: int = 0, theme: str = "light") -> "Chart":
        """A chart of who gained and who lost, at every layer that moves a target.

        Args:
            row: Whose.
            theme: "light" or "dark".

        Raises:
            ArgumentError: If there is no such row or theme.
        """
        from ..report.charts import flow_figure

        return flow_figure(self, row=row, theme=theme)

    def to_arrow(self) -> "pyarrow.Table":
        """One line per row, segment and token; see `iglens.records.flow_table`."""
        from .flow_table import tidy_table

        return tidy_table(self)

    def to_json(self) -> dict[str, Any]:
        """The published JSON form; NaN and infinity become null."""
        from ..storage import flow_to_json

        return flow_to_json(self)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Any:
        """What notebooks show: the chart, and the same in words."""
        from ..report.notebook import chart_bundle

        return chart_bundle(self)

    def __str__(self) -> str:
        """Per row and layer that matters, who gained and who lost."""
        from ..report.flow import summary

        return summary(self)
