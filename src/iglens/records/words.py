"""Words: neighbouring tokens that are read as one, for display."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class Word:
    """The summed columns of a word's pieces.

    Attributes:
        text: The word, with the space in front of it.
        start: Its first piece.
        stop: The piece after its last.
        log_level: Log-probability of all its pieces together, at every point.
        log_credits: What each segment added to that, in nats.
        credits: Its share of what each segment added to the joint probability.
    """

    text: str
    start: int
    stop: int
    log_level: Float[np.ndarray, " points"]
    log_credits: Float[np.ndarray, " segments"]
    credits: Float[np.ndarray, " segments"]


def word_ranges(pieces: Sequence[str]) -> list[tuple[int, int]]:
    r"""Where words start and stop.

    A piece that starts with white space, or follows one that ends in it, starts a word.
    So does punctuation, unless the word goes on behind it.

    Example:
        >>> word_ranges([" Ha", "noi", ",", " don", "'", "t", ".", "\n", "The"])
        [(0, 2), (2, 3), (3, 6), (6, 7), (7, 8), (8, 9)]
    """
    firsts = [i for i in range(len(pieces)) if _starts(pieces, i)]
    return list(zip(firsts, [*firsts[1:], len(pieces)], strict=True))


def _starts(pieces: Sequence[str], i: int) -> bool:
    """Whether a piece starts a word."""
    piece = pieces[i]
    if i == 0 or piece[:1].isspace() or pieces[i - 1][-1:].isspace():
        return True
    if not piece or any(map(str.isalnum, piece)):
        return False
    behind = pieces[i + 1] if i + 1 < len(pieces) else ""
    return not behind[:1].isalnum()
