"""The table of a whole answer as JSON: by itself, or as a field of its attribution."""

from typing import Any

from ..records.answer import Answer
from .plain import nulled
from .subject_form import subject_to_json

ANSWER_SCHEMA = "iglens.answer/1"

_ARRAYS = (
    "joint_log",
    "joint",
    "joint_log_credits",
    "joint_credits",
    "log_levels",
    "log_credits",
    "credits",
    "log_writes",
    "writes",
)


def answer_to_json(answer: Answer) -> dict[str, Any]:
    """A whole document: what the table is about, and the table."""
    return subject_to_json(answer.subject, ANSWER_SCHEMA) | answer_fields(answer)


def answer_fields(answer: Answer) -> dict[str, Any]:
    """The table alone; NaN and infinity become null, and the flags say where."""
    return {
        "text": answer.text,
        "sharing": answer.sharing,
        "pieces": list(answer.texts),
        "words": [
            {"text": word.text, "pieces": [word.start, word.stop]}
            for word in answer.words()
        ],
        **{name: nulled(getattr(answer, name)) for name in _ARRAYS},
        "completeness": {
            name: nulled(values) for name, values in answer.completeness.items()
        },
    }
