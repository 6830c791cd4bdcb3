"""What one method says of a token: credits that add up, or a level per layer."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

Kind = Literal["contributions", "reading"]


@dataclass(frozen=True, eq=False)
class Reading:
    """A level per layer: it says where a readout stands, and has no total.

    Attributes:
        unit: Unit of the levels.
        layers: Layer of every level.
        levels: The levels.
        notes: Sentences that whoever sees the numbers must see.
    """

    unit: str
    layers: tuple[int, ...]
    levels: Float[np.ndarray, " parts"]
    notes: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """Always "reading"."""
        return "reading"

    @property
    def parts(self) -> tuple[str, ...]:
        """What each value is of: whole layers."""
        return ("layer",) * len(self.layers)

    @property
    def values(self) -> Float[np.ndarray, " parts"]:
        """The levels."""
        return self.levels


@dataclass(frozen=True, eq=False)
class Contributions:
    """Credits of layers, or of parts of layers, that are meant to add up.

    Attributes:
        unit: Unit of the credits.
        layers: Layer of every credit.
        parts: What each is of: "block", "attention", "head 3", ….
        credits: The credits.
        total: What the method says that they add up to, in their unit.
        start: Probability of the target where the method's path starts.
        notes: Sentences that whoever sees the numbers must see.
    """

    unit: str
    layers: tuple[int, ...]
    parts: tuple[str, ...]
    credits: Float[np.ndarray, " parts"]
    total: float
    start: float
    notes: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """Always "contributions"."""
        return "contributions"

    @property
    def values(self) -> Float[np.ndarray, " parts"]:
        """The credits."""
        return self.credits

    @property
    def missed(self) -> float:
        """`sum(credits) - total`, in the method's own unit."""
        return float(self.credits.sum() - self.total)


@dataclass(frozen=True)
class Cost:
    """What a method took when it was run by itself; every number was counted.

    Attributes:
        forwards: Passes of a text through the model's blocks.
        backwards: Passes back through them.
        head: Products of one vector with the unembedding, forwards or back.
        seconds: Wall-clock time.
    """

    forwards: int
    backwards: int
    head: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Entry:
    """One method.

    Attributes:
        name: What it is asked for by.
        title: What to show.
        found: What it says; None if it cannot be had here.
        reason: Why not; None if it can.
        cost: What it took.
    """

    name: str
    title: str
    found: Contributions | Reading | None
    reason: str | None
    cost: Cost


def per_layer(
    found: Contributions | Reading, values: Float[np.ndarray, " parts"], start: float
) -> dict[int, float]:
    """What each layer adds: credits of its parts added up, or the rise of its level.

    Args:
        found: What a method says.
        values: Its numbers, in any unit.
        start: The level before the first layer, in that unit; for a reading.
    """
    if isinstance(found, Reading):
        rises = np.diff(values, prepend=start)
        return dict(zip(found.layers, rises.tolist(), strict=True))
    sums: dict[int, float] = {}
    for layer, value in zip(found.layers, values.tolist(), strict=True):
        sums[layer] = sums.get(layer, 0.0) + value
    return sums
