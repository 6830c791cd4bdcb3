"""The text that everything is measured on: prose, as long as is asked for."""

from pathlib import Path

import iglens

PROSE = """The lens is older than the telescope. Glass makers in Venice ground small
discs of clear glass for readers whose eyes had grown weak, and for three
hundred years nobody thought of holding two of them in a row. When somebody
did, the moons of Jupiter came down to the window sill, and with them a
question that had not been asked before: what else is there, plainly in
sight, that we have no instrument for? A language model is a strange thing
to point a lens at. It has no surface and it does not shine. It is a list of
numbers that turns one text into the next word, and each of its layers
changes the list a little. Somewhere on that way the next word becomes
legible, early for a comma, late for the name of a town, and the same word
may appear, fade and return before it is said. To ask where a word comes
from is to ask between which two of these layers the reader at the end could
first have made it out. The answer is a number for every layer, and the
numbers add up, because nothing is read twice and nothing is left out."""

PAGES = ("method", "limits", "inside", "lenses", "models", "answers")
"""Pages of the documentation whose paragraphs follow it."""


def paragraphs() -> list[str]:
    """The prose, and paragraphs of pages: neither tables nor code."""
    docs = Path(__file__).resolve().parents[1] / "docs"
    found = [" ".join(PROSE.split())]
    for page in PAGES:
        for part in (docs / f"{page}.md").read_text(encoding="utf-8").split("\n\n"):
            if len(part) > 200 and not set("|`") & set(part[:3]) and "| " not in part:
                found.append(" ".join(part.split()))
    return found


def text_ids(decoder: iglens.Decoder, n_tokens: int) -> list[int]:
    """The first tokens of it."""
    ids: list[int] = []
    for part in paragraphs():
        ids += decoder.encode(part + "\n\n", special_tokens=not ids)
        if len(ids) >= n_tokens:
            return ids[:n_tokens]
    raise ValueError(f"the text has {len(ids)} tokens, {n_tokens} were asked for")
