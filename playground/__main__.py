"""Plant, ask every method, write the table: `python -m playground`."""

import argparse
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version

from .kinds import KINDS
from .scores import check, scores
from .table import render, write

SEEDS, PROMPTS = 8, 6
CHECKED = 64
"""Prompts that it is seen on whether a model does what was planned."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run; the page is written if nothing was left out."""
    parser = argparse.ArgumentParser(prog="playground", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="models of each kind")
    parser.add_argument("--prompts", type=int, default=PROMPTS, help="for each model")
    parser.add_argument("--only", choices=KINDS, help="one kind of model")
    given = parser.parse_args(arguments)
    names = tuple(KINDS) if given.only is None else (given.only,)
    began = time.perf_counter()
    checks, found = [], []
    for name in names:
        for seed in range(given.seeds):
            print(
                f"\r{name}, model {seed + 1}    ", end="", file=sys.stderr, flush=True
            )
            subject = KINDS[name](seed)
            checks.append(check(subject, subject.prompts(CHECKED, 1000 + seed)))
            found += scores(subject, given.prompts, 2000 + seed)
    made = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    block = render(checks, found, made, time.perf_counter() - began)
    print(file=sys.stderr)
    print(block)
    if (given.seeds, given.prompts, given.only) == (SEEDS, PROMPTS, None):
        write(block)


if __name__ == "__main__":
    main()
