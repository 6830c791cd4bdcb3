"""What is explained at a position: a scalar of the next-token distribution."""

from dataclasses import dataclass
from typing import Literal

from ..errors import ArgumentError

Unit = Literal["probability", "log_probability", "log_odds"]
"""Natural logarithms (nats); log-odds are of the target against everything else."""

UNITS: tuple[Unit, ...] = ("probability", "log_probability", "log_odds")


def check_unit(unit: str) -> None:
    """Refuse what is no unit.

    Raises:
        ArgumentError: If it is none of `UNITS`.
    """
    if unit not in UNITS:
        raise ArgumentError(f"`unit` is {unit!r}; known are {', '.join(UNITS)}.")


@dataclass(frozen=True)
class Target:
    """A token, or a set of tokens whose probabilities are added.

    Attributes:
        ids: The token ids, ascending and distinct.
        text: What to show.
        kind: "token" or "set"; follows from `ids`.

    Raises:
        ArgumentError: If there is no id, or one twice.
    """

    ids: tuple[int, ...]
    text: str

    def __post_init__(self) -> None:
        """Refuse what is not a set."""
        if not self.ids:
            raise ArgumentError("`target` holds no token: name at least one.")
        if len(set(self.ids)) != len(self.ids):
            raise ArgumentError(f"`target` names a token twice: {list(self.ids)}.")

    @property
    def kind(self) -> Literal["token", "set"]:
        """How the ids are combined."""
        return "token" if len(self.ids) == 1 else "set"
