"""What is explained at a position: a scalar of the next-token distribution."""

from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import ArgumentError

Unit = Literal["probability", "log_probability", "log_odds", "logit"]
"""Natural logarithms (nats); log-odds are of the target against everything else. A
logit is the model's raw one, which only means something against another."""

UNITS: tuple[Unit, ...] = get_args(Unit)

Kind = Literal["token", "set", "contrast", "entropy", "kl", "scalar"]

KINDS: tuple[Kind, ...] = get_args(Kind)


def check_unit(unit: str) -> None:
    """Refuse what is no unit.

    Raises:
        ArgumentError: If it is none of `UNITS`.
    """
    if unit not in UNITS:
        raise ArgumentError(f"`unit` is {unit!r}; known are {', '.join(UNITS)}.")


@dataclass(frozen=True)
class Target:
    """A scalar of the distribution over the next token.

    Of tokens: one of them, a set whose probabilities are added, or the contrast of two
    such. Of the whole distribution: its entropy, its divergence from the final one, or
    a scalar of the user's own (`iglens.Scalar`), of which only name and unit are kept.

    Attributes:
        ids: The token ids, distinct; none for a scalar of the whole distribution.
        text: What to show.
        against: The tokens whose level is subtracted; none if it is no contrast.
        against_text: What to show for them.
        space: Unit of the level where it is not the one the result is made in: "nats"
            for entropy and divergence, its own for a user's scalar. None for tokens.
        kind: "token", "set", "contrast", "entropy", "kl" or "scalar".

    Raises:
        ArgumentError: If there is no id, one twice, or one on both sides.

    Example:
        >>> Target((5,), " Paris", against=(7,), against_text=" Rome").kind
        'contrast'
    """

    ids: tuple[int, ...]
    text: str
    against: tuple[int, ...] = ()
    against_text: str = ""
    space: str | None = None
    kind: Kind = "token"

    def __post_init__(self) -> None:
        """Refuse what is not a set, and settle the kind."""
        if self.kind in ("entropy", "kl", "scalar"):
            if self.ids or self.against:
                raise ArgumentError(f"`target` is {self.kind}, which has no tokens.")
            return
        if not self.ids:
            raise ArgumentError("`target` holds no token: name at least one.")
        for ids in (self.ids, self.against):
            if len(set(ids)) != len(ids):
                shown = self.text if ids is self.ids else self.against_text
                raise ArgumentError(
                    f"`target` {shown!r} names a token twice: its ids are {list(ids)}."
                )
        if set(self.against) == set(self.ids):
            raise ArgumentError(f"{self.text!r} is contrasted with itself.")
        if both := sorted(set(self.against) & set(self.ids)):
            raise ArgumentError(
                f"`target` has the token ids {both} on both sides of its contrast; "
                "they would cancel. Leave them out of one."
            )
        single = "token" if len(self.ids) == 1 else "set"
        object.__setattr__(self, "kind", "contrast" if self.against else single)

    @property
    def name(self) -> str:
        """What to show for the whole of it."""
        return f"{self.text} - {self.against_text}" if self.against else self.text

    @property
    def alone(self) -> "Target":
        """This side of a contrast; the target itself where it is none."""
        return Target(self.ids, self.text) if self.against else self

    @property
    def of_tokens(self) -> bool:
        """Whether it is a level of certain tokens, or a difference of two."""
        return bool(self.ids)

    @property
    def key(self) -> tuple[object, ...]:
        """What makes it the same target as another: not how it was written.

        Example:
            >>> Target((5, 7), "a|b").key == Target((7, 5), "b|a").key
            True
        """
        own = self.text if self.kind == "scalar" else None
        return (
            self.kind,
            tuple(sorted(self.ids)),
            tuple(sorted(self.against)),
            self.space,
            own,
        )

    def unit(self, unit: Unit) -> str:
        """Unit of its level in a result made in `unit`."""
        return self.space or unit

    def versus(self, other: "Target") -> "Target":
        """The contrast with another target: this one's level minus the other's.

        Raises:
            ArgumentError: If either is no token or set, or they share tokens.
        """
        if {self.kind, other.kind} - {"token", "set"}:
            raise ArgumentError(
                f"{self.text!r} and {other.text!r} make no contrast: both must be a "
                "token or a set."
            )
        return Target(self.ids, self.text, other.ids, other.text)


ENTROPY = Target((), "entropy", space="nats", kind="entropy")
"""Entropy of the distribution over the next token, in nats."""

KL_TO_FINAL = Target((), "KL to the final distribution", space="nats", kind="kl")
"""`KL(final || here)`, in nats: how far the lens is from the model's last word."""
