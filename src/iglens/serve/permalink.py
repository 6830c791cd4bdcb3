"""A question as a piece of an address, so that a link asks it again after a restart.

It stands after the `#`, which browsers keep to themselves: prompts are in no request's
address, and so in no log on the way.
"""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode

from .question import Question


def link_code(question: Question) -> str:
    """The question in letters that an address may hold.

    Example:
        >>> read_code(link_code(Question(prompt=[3, 1, 4], by="head"))).by
        'head'
    """
    said = question.model_dump(mode="json", exclude_defaults=True)
    text = json.dumps(said, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_code(code: str) -> Question:
    """The question of a code.

    Raises:
        ValueError: If it is none.
    """
    text = urlsafe_b64decode(code + "=" * (-len(code) % 4))
    return Question.model_validate_json(text)
