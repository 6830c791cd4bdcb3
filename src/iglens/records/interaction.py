"""How much the parts of a block do only together."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from .subject import Subject

if TYPE_CHECKING:
    from ..report.charts import Chart


@dataclass(frozen=True, eq=False)
class Interaction:
    """What every part of a block would change alone, and what takes them together.

    With `a` and `m` the updates of two parts of a block that starts at `h`, and `f` the
    level, the interaction is `f(h+a+m) - f(h+a) - f(h+m) + f(h)`; of more parts, what
    the block changes beyond the sum of what each changes alone. In a block whose parts
    follow each other, `h+m` is a counterfactual: no state of the model.

    Attributes:
        subject: What the rows are; its segments are the parts, block by block.
        alone: `f(h+u) - f(h)` for the update `u` of every part.
        credits: What every part wrote on the path: its credit, but for what a lens
            moved before it.
        unit: Unit of both, but for rows with a unit of their own.
    """

    subject: Subject
    alone: Float[np.ndarray, "rows segments"]
    credits: Float[np.ndarray, "rows segments"]
    unit: str

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers with parts, ascending."""
        return tuple(dict.fromkeys(self.subject.layers))

    @property
    def interaction(self) -> Float[np.ndarray, "rows layers"]:
        """What each block changes beyond the sum of its parts alone."""
        beyond, layers = self.credits - self.alone, np.array(self.subject.layers)
        return np.stack([beyond[:, layers == at].sum(1) for at in self.layers], 1)

    def figure(self, *, row: int = 0, theme: str = "light") -> "Chart":
        """A chart of what the parts of every layer change alone, and together.

        Args:
            row: Whose.
            theme: "light" or "dark".

        Raises:
            ArgumentError: If there is no such row or theme.
        """
        from ..report.charts import interaction_figure

        return interaction_figure(self, row=row, theme=theme)

    def to_json(self) -> dict[str, Any]:
        """The published JSON form; NaN and infinity become null."""
        from ..storage import interaction_to_json

        return interaction_to_json(self)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Any:
        """What notebooks show: the chart, and the same in words."""
        from ..report.notebook import chart_bundle

        return chart_bundle(self)

    def __str__(self) -> str:
        """Per row the blocks in which the parts' order matters most."""
        from ..report.interaction import lines

        return "\n".join(lines(self))
