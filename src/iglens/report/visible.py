"""Token text made safe and legible: nothing in it can restyle a page or a terminal."""

from unicodedata import category

STACKED = 3
"""Combining marks on one character that are shown; no script needs more."""


def visible(text: str) -> str:
    r"""The text with everything that does not print as a backslash escape.

    Example:
        >>> visible(chr(27))
        '\\x1b'
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


def marked(text: str, width: int) -> str:
    """The text with its spaces and line ends shown, cut to a width.

    Example:
        >>> marked(" Paris", 9), marked(" extraordinary", 9)
        ('␣Paris', '␣extraor…')
    """
    shown = visible(text.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥"))
    return shown if len(shown) <= width else shown[: width - 1] + "…"


def legible(text: str, width: int) -> str:
    r"""The text as `marked` shows it, without towers of combining marks.

    Example:
        >>> tower = "a" + 9 * chr(0x301)
        >>> len(legible(tower, 9)), legible(tower, 9)[-1]
        (5, '…')
    """
    kept, height = [], 0
    for sign in text[: 64 * width]:
        height = height + 1 if category(sign)[0] == "M" else 0
        if height <= STACKED:
            kept.append(sign)
        elif height == STACKED + 1:
            kept.append("…")
    return marked("".join(kept), width)
