"""Measure everything on the page again: `python -m reproduction`."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence

from .page import PAGE, SECTIONS, filled, made, models
from .section import FULL, SHORT, Size
from .subjects import SHORT as SHORT_SUBJECTS
from .subjects import SUBJECTS, Subject


def main(arguments: Sequence[str] | None = None) -> None:
    """Run; the full form writes its tables into the page, the short one only prints."""
    names = [section.name for section in SECTIONS]
    parser = argparse.ArgumentParser(prog="reproduction", description=__doc__)
    parser.add_argument("--short", action="store_true", help="small models, in seconds")
    parser.add_argument("--only", action="append", choices=names, help="a section")
    parser.add_argument("--model", choices=SUBJECTS, help="one model; prints only")
    given = parser.parse_args(arguments)
    size, makers = (SHORT, SHORT_SUBJECTS) if given.short else (FULL, SUBJECTS)
    if given.model is not None and not given.short:
        makers = {given.model: SUBJECTS[given.model]}
    writes = makers is SUBJECTS
    subjects = [make(size.facts, size.seed) for make in makers.values()]
    for name, block in _blocks(subjects, size, given.only or names):
        print(f"\n## {name}\n\n{block}", flush=True)
        if writes:
            text = filled(PAGE.read_text(encoding="utf-8"), name, block)
            PAGE.write_text(text, encoding="utf-8")


def _blocks(
    subjects: Sequence[Subject], size: Size, names: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """The models, and each section as it is done."""
    began = time.perf_counter()
    yield "models", models(subjects)
    for section in SECTIONS:
        if section.name in names:
            yield section.name, f"{section.table(subjects, size)}\n\n*{made(size)}*"
            passed = time.perf_counter() - began
            print(f"{section.name}: after {passed:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
