"""What every method is given, and what every method is."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from ..attribution.path import Level
from ..attribution.rows import resolve_rows
from ..errors import UnsupportedModelError
from ..model.decoder import Decoder
from ..readout import AbstractReadout, LinearReadout, read
from ..readout.lens import AbstractLens
from ..readout.target import token_level
from ..records import Target, Unit
from ..records.comparison import Contributions, Reading
from ..trace import Trace
from .evaluations import Evaluations


@dataclass(frozen=True, eq=False)
class Case:
    """One token of one text, and how it is to be explained.

    Attributes:
        run: Runs the model and gives the trace of the one position, opened as far as
            the method needs.
        target: What is explained there: a token, a set, or a contrast.
        unit: Unit of levels, where a method has a choice.
        lens: A fitted lens; None if there is none.
        n_steps: Steps of the methods that integrate.
        strict: Refuse what cannot be verified.
        decoder: The model; None for traces made by hand.
        ids: The tokens before the predicted one, where there is a model.
        evaluations: What is counted.
    """

    run: Callable[[], Trace]
    target: Target
    unit: Unit = "probability"
    lens: AbstractLens | None = None
    n_steps: int = 32
    strict: bool = True
    decoder: Decoder | None = None
    ids: tuple[int, ...] = ()
    evaluations: Evaluations = field(default_factory=Evaluations)

    @cached_property
    def trace(self) -> Trace:
        """The states, their readout counted; the model runs when first asked."""
        trace = self.run()
        return replace(trace, readout=self.evaluations.counted(trace.readout))

    def levels(
        self,
        states: Float[Tensor, "points d_model"],
        readout: AbstractReadout | None = None,
        unit: Unit | None = None,
    ) -> Float[np.ndarray, " points"]:
        """The target's level at some states, in one streamed pass."""
        rows = resolve_rows(self.trace, self.target)
        tokens = rows.tokens.expand(len(states), -1)
        found = read(readout or self.trace.readout, states, tokens)
        chosen, against = (
            mask.expand(len(states), -1) for mask in (rows.chosen, rows.against)
        )
        level = token_level(found, chosen, against, unit or self.unit)
        return level.cpu().numpy()

    @property
    def states(self) -> Float[Tensor, "points d_model"]:
        """The states of all layers, 0 first."""
        return self.trace.states[:, 0]

    @property
    def linear(self) -> LinearReadout:
        """The readout, where its head can be read as a matrix.

        Raises:
            UnsupportedModelError: If it cannot.
        """
        readout = self.trace.readout
        if not isinstance(readout, LinearReadout):
            raise UnsupportedModelError(
                "This model's head is called, not read as a matrix, so its logits "
                "cannot be taken apart."
            )
        return readout

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers, 1 to the last."""
        return tuple(range(1, self.trace.n_layers + 1))

    def start(self) -> float:
        """Probability at the embedding; in units without one, the level there."""
        return float(self.levels(self.states[:1])[0])


class AbstractMethod(ABC):
    """A way to say what layers have to do with a prediction.

    Attributes:
        name: What it is asked for by.
        title: What to show.
        by: How far down blocks are opened for it.
    """

    name: str
    title: str
    by: ClassVar[Level] = "layer"

    @abstractmethod
    def __call__(self, case: Case) -> Contributions | Reading:
        """What it says.

        Raises:
            UnsupportedModelError: If it cannot be had of this model.
            ArgumentError: If it cannot be had of this question.
        """
