"""Token text made safe and legible: nothing in it can restyle a page or a terminal."""

from unicodedata import category

STACKED = 4
"""Combining marks on one character that are shown; scripts in use need fewer."""


def visible(text: str) -> str:
    r"""The text with everything that does not print as a backslash escape.

    Of combining marks that are piled on one character, which would cover the lines
    around it, the first few are left and the others become one "…".

    Example:
        >>> visible(chr(27)), len(visible("a" + 9 * chr(0x301)))
        ('\\x1b', 6)
    """
    plain = text if text.isascii() else _levelled(text)
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in plain
    )


def _levelled(text: str) -> str:
    """The text without towers of combining marks."""
    kept, height = [], 0
    for sign in text:
        height = height + 1 if category(sign)[0] == "M" else 0
        if height <= STACKED:
            kept.append(sign)
        elif height == STACKED + 1:
            kept.append("…")
    return "".join(kept)


def marked(text: str, width: int) -> str:
    """The text with its spaces and line ends shown, cut to a width.

    Example:
        >>> marked(" Paris", 9), marked(" extraordinary", 9)
        ('␣Paris', '␣extraor…')
    """
    shown = visible(text.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥"))
    return shown if len(shown) <= width else shown[: width - 1] + "…"
