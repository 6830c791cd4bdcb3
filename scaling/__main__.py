"""Measure everything on the page again: `python -m scaling`."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from reproduction.page import filled

from .measured import Size, models
from .projection import projections, shapes
from .survival import killed, memory

PAGE = Path(__file__).resolve().parents[1] / "docs" / "scaling.md"

EMBEDDED = ("smollm2", "gemma3-270m")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run; the full form writes its tables into the page, the short one only prints."""
    parser = argparse.ArgumentParser(prog="scaling", description=__doc__)
    parser.add_argument("--short", action="store_true", help="in seconds")
    parser.add_argument("--only", action="append", help="a section")
    given = parser.parse_args(arguments)
    size = Size(20, 1) if given.short else Size(100, 5)
    names = EMBEDDED[:1] if given.short else EMBEDDED
    sections: dict[str, Callable[[], str]] = {
        "shapes": shapes,
        "projections": projections,
        "measured": lambda: models(names, size),
        "killed": lambda: killed(3 if given.short else 100),
        "memory": lambda: memory(*((6_000, 2) if given.short else (100_000, 10))),
    }
    for name in given.only or sections:
        block = sections[name]()
        print(f"\n## {name}\n\n{block}", flush=True)
        if not given.short:
            text = filled(PAGE.read_text(encoding="utf-8"), name, block)
            PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
