"""What kind of token a text is: a column to slice statistics by."""

from typing import Literal, get_args

TokenClass = Literal[
    "word", "word piece", "number", "punctuation", "white space", "other"
]

TOKEN_CLASSES: tuple[TokenClass, ...] = get_args(TokenClass)


def token_class(text: str) -> TokenClass:
    r"""The class of a decoded token.

    A word starts with white space and goes on with letters; a piece has letters and no
    space before, be it the end of a word or one that follows a line break.

    Example:
        >>> [token_class(t) for t in (" Paris", "ing", " 42", "\n", ".", "🙂")]
        ['word', 'word piece', 'number', 'white space', 'punctuation', 'other']
    """
    inner = text.strip()
    if not inner:
        return "white space" if text else "other"
    if all(c.isdigit() or c in ".,-+" for c in inner) and any(
        c.isdigit() for c in inner
    ):
        return "number"
    if inner[0].isalpha():
        return "word" if text[0].isspace() else "word piece"
    if all(not c.isalnum() and c.isascii() for c in inner):
        return "punctuation"
    return "other"
