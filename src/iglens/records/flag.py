"""A cell that is not a number to rely on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Flag:
    """A marked cell: odd values are shown as odd, never dropped or clipped.

    Attributes:
        row: Row of the cell.
        point: Point of the cell; None if the whole row is meant.
        kind: "non_finite_state", "non_finite_level", "unverified", "unfaithful" (the
            readout misses the model's own distribution), "overshoot" (through a lens
            the level passes its final value), "uncertified" (an integral that did not
            come out), "flat_logits" (all logits are equal), or "non_finite_value" for a
            number that only the JSON form had to null.
        detail: What was seen.
    """

    row: int
    point: int | None
    kind: str
    detail: str
