"""The table of an answer with fewer layers, and in long form."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from .answer import Answer
from .flag import Flag
from .joint import shares
from .table import utf8
from .views import kept_points, merged

if TYPE_CHECKING:
    import pyarrow


def coarsened(answer: Answer, layers: Iterable[int]) -> Answer:
    """See `Answer.coarsen`."""
    points = kept_points(answer.subject.layers, layers)
    levels = answer.log_levels[:, points]
    with np.errstate(invalid="ignore"):
        moved = np.diff(levels, axis=1)
    log_credits = _summed(answer.log_credits, points, moved)
    direct = shares(levels[:, :-1], levels[:, 1:], answer.sharing)
    credits = _summed(answer.credits, points, direct)
    return replace(
        answer,
        subject=replace(
            answer.subject,
            segments=merged(answer.subject.segments, points),
            flags=_flags_at(answer.subject.flags, points),
        ),
        log_levels=levels,
        log_credits=log_credits,
        credits=credits,
        log_writes=_writes(answer, answer.log_writes, log_credits, points),
        writes=_writes(answer, answer.writes, credits, points),
    )


def _summed(
    table: Float[np.ndarray, "tokens segments"],
    points: list[int],
    direct: Float[np.ndarray, "tokens merged"],
) -> Float[np.ndarray, "tokens merged"]:
    """Sums of merged segments; the change of the ends where a sum is not finite."""
    sums = np.add.reduceat(table, points[:-1], axis=1)
    direct = np.where(np.isfinite(direct), direct, np.nan)
    return np.where(np.isfinite(sums), sums, direct)


def _writes(
    answer: Answer,
    writes: Float[np.ndarray, "tokens segments"],
    credits: Float[np.ndarray, "tokens merged"],
    points: list[int],
) -> Float[np.ndarray, "tokens merged"]:
    """Writes of merged segments; through a lens those were not read."""
    if answer.subject.lens == "logit":
        return credits
    ends = [point - 1 for point in points[1:]]
    return np.where(np.diff(points) > 1, np.nan, writes[:, ends])


def _flags_at(flags: Iterable[Flag], points: list[int]) -> tuple[Flag, ...]:
    """The flags of whole rows and of points that are kept."""
    place = {point: i for i, point in enumerate(points)}
    return tuple(
        flag if flag.point is None else replace(flag, point=place[flag.point])
        for flag in flags
        if flag.point is None or flag.point in place
    )


def tidy_table(answer: Answer) -> "pyarrow.Table":
    """The table in long form: one line per token and segment.

    Tokens come after one another. The columns:

    position    index of the token
    token       its text
    word        number of the word it is a piece of
    layer       layer the segment ends at
    component   part of the layer, such as "block"
    log_level   the token's log-probability at the segment's end
    log_credit  what the segment added to it
    log_write   the part of that which the block wrote
    credit      share of what the segment added to the joint probability
    write       the part of that which the block wrote
    joint_log   log-probability of the whole answer at the segment's end
    """
    import pyarrow

    subject, string = answer.subject, pyarrow.string()
    n_tokens, n_segments = answer.credits.shape

    def per_token(values: list[str] | np.ndarray) -> np.ndarray:
        return np.repeat(np.asarray(values), n_segments)

    words = np.concatenate(
        [np.full(word.stop - word.start, i) for i, word in enumerate(answer.words())]
    )
    texts = pyarrow.array([utf8(text) for text in answer.texts], string)
    parts = [segment.part for segment in subject.segments]
    return pyarrow.table(
        {
            "position": per_token(subject.positions.astype(np.int64)),
            "token": texts.take(pyarrow.array(per_token(np.arange(n_tokens)))),
            "word": per_token(words.astype(np.int64)),
            "layer": np.tile(np.array(subject.layers, np.int64), n_tokens),
            "component": pyarrow.array(parts * n_tokens, string),
            "log_level": answer.log_levels[:, 1:].ravel(),
            "log_credit": answer.log_credits.ravel(),
            "log_write": answer.log_writes.ravel(),
            "credit": answer.credits.ravel(),
            "write": answer.writes.ravel(),
            "joint_log": np.tile(answer.joint_log[1:], n_tokens),
        }
    )
