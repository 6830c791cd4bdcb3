"""A whole answer in plain sentences."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ..records import Segment
from ..records.answer import Answer
from ..records.joint import change
from ..records.words import Word
from .text import between, format_credit, format_level
from .visible import visible

SHOWN = 60
"""Characters of an answer that a sentence quotes."""


def summary(answer: Answer) -> str:
    """The whole in one sentence, then one line per word."""
    lines = [answer_sentence(answer)]
    whole = answer.credits.sum() or np.nan
    for word in answer.words():
        best = _strongest(word.log_credits)
        pieces = word.stop - word.start
        text = f"  '{visible(word.text)}'"
        text += f" ({pieces} pieces)" if pieces > 1 else ""
        text += f": log-probability {format_level(word.log_level[-1], 'nats')}"
        if np.isfinite(share := word.credits.sum() / whole):
            text += f", {share:.0%} of the change of the joint probability"
        if best is not None:
            amount = format_credit(float(word.log_credits[best]), "nats")
            where = between(answer.subject.segments[best])
            text += f"; most moved {where} ({amount} nats)"
        lines.append(f"{text}.")
    return "\n".join([*lines, *(f"Warning: {w}" for w in answer.subject.warnings)])


def answer_sentence(answer: Answer) -> str:
    """How probable the whole is, and between which layers that became readable."""
    return _joint_sentence(
        f"{_quoted(answer.text)} ({len(answer.texts)} tokens)",
        answer.joint_log,
        answer.subject.segments,
    )


def word_sentence(word: Word, segments: Sequence[Segment]) -> str:
    """The same of a word that has several pieces."""
    name = f"{_quoted(word.text)} ({word.stop - word.start} pieces)"
    return _joint_sentence(name, word.log_level, segments)


def _quoted(text: str) -> str:
    """A text in quotes, shortened."""
    quoted = visible(text)
    return f"'{quoted if len(quoted) <= SHOWN else quoted[: SHOWN - 1] + '…'}'"


def _joint_sentence(
    start: str, log_level: Float[np.ndarray, " points"], segments: Sequence[Segment]
) -> str:
    """How probable some tokens in a row are, and where that became readable."""
    with np.errstate(under="ignore"):
        joint = np.exp(log_level)
    if not np.isfinite(joint[[0, -1]]).all():
        return f"{start}: the joint levels are not finite, so no layer can be named."
    whole = (
        f"{start}: joint probability {format_level(float(joint[-1]), 'probability')}"
    )
    rises = bool(joint[-1] >= joint[0])
    credits = change(log_level[:-1], log_level[1:])
    best = _strongest(credits if rises else -credits, signed=True)
    if best is None or credits[best] == 0:
        return f"{whole}; the layers do not change it."
    verb = "became readable" if rises else "was lost again"
    amount = format_level(abs(float(credits[best])), "probability")
    if rises and credits[best] <= joint[-1]:
        amount += " of it"
    return f"{whole}; {amount} {verb} {between(segments[best])}."


def _strongest(credits: np.ndarray, *, signed: bool = False) -> int | None:
    """The segment that adds most, or moves most; None if no credit is a number."""
    sizes = credits if signed else np.abs(credits)
    sizes = np.where(np.isfinite(sizes), sizes, -np.inf)
    best = int(sizes.argmax())
    return best if np.isfinite(sizes[best]) else None
