"""Token text made safe and legible: nothing in it can restyle a page or a terminal."""


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
