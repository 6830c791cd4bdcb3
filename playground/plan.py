"""What is planted: which layers do the work, and where the token becomes readable."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Site:
    """A place that does something.

    Attributes:
        layer: Number of the block, from 1.
        part: "attention" or "mlp".
        head: Number of the head, from 0; -1 where the part is an MLP.
    """

    layer: int
    part: str
    head: int = -1


@dataclass(frozen=True)
class Plan:
    """The known answer.

    Attributes:
        readable: Where the token becomes readable: what is written there is what the
            head of the model reads.
        cause: Without any one of these the model no longer finds the token; without
            any other layer it does.
    """

    readable: tuple[Site, ...]
    cause: tuple[Site, ...]

    def sites(self, question: str) -> tuple[Site, ...]:
        """The answer to "readable" or "cause"."""
        return {"readable": self.readable, "cause": self.cause}[question]


QUESTIONS = ("readable", "cause")
"""What a method may be asked to find."""


@dataclass(frozen=True)
class Prompt:
    """A text, and the token that follows.

    Attributes:
        ids: Its token ids.
        target: Id of the token that the model must find.
    """

    ids: tuple[int, ...]
    target: int
