"""Questions for somebody who does not know yet what to ask."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Example:
    """A question that can be run by one click.

    Attributes:
        text: The prompt.
        shows: What there is to see.
        fields: Fields of the form besides the prompt.
        chat: Whether it takes a chat template.
    """

    text: str
    shows: str
    fields: dict[str, str | bool] = field(default_factory=dict)
    chat: bool = False


EXAMPLES = (
    Example("The capital of Japan is", "a fact, token by token"),
    Example(
        "When Mary and John went to the store, John gave a drink to",
        "one name against another, by attention and MLP",
        {"target": " Mary", "contrast": " John", "by": "sublayer"},
    ),
    Example(
        "Paris is in France. Rome is in Italy. Berlin is in",
        "a pattern, by heads and what they read",
        {"target": " Germany", "by": "source"},
    ),
    Example(
        "What is the largest planet of the solar system?",
        "the answer of a chat",
        {"chat": True, "max_new_tokens": "10"},
        chat=True,
    ),
)
