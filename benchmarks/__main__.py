"""Measure everything on the page again: `make bench`, or `python -m benchmarks`."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from reproduction.page import filled

from .results import RESULTS, Results
from .size import CASES, FULL, SHORT
from .suite import measure
from .tables import BLOCKS

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: Sequence[str] | None = None) -> Results:
    """Run; the whole full form writes its results and the pages, others only print."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--short", action="store_true", help="one model, in seconds")
    parser.add_argument("--only", action="append", choices=CASES, help="a case")
    parser.add_argument("--threads", type=int, help="of every program; default torch's")
    parser.add_argument("--output", type=Path, help="write the results here instead")
    parser.add_argument(
        "--render", action="store_true", help="write the pages from stored results"
    )
    given = parser.parse_args(arguments)
    if given.render:
        results = Results.load()
        render(results)
        return results
    if given.threads:
        torch.set_num_threads(given.threads)
    os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())
    os.environ["HF_HUB_OFFLINE"] = "1"
    results = measure(SHORT if given.short else FULL, given.only or ())
    if given.output is not None:
        results.save(given.output)
    elif not (given.short or given.only):
        results.save(RESULTS)
        results = Results.load()
        render(results)
    for (_, name), block in BLOCKS.items():
        print(f"\n## {name}\n\n{block(results)}", flush=True)
    return results


def render(results: Results) -> None:
    """Put every table in its place."""
    for (page, name), block in BLOCKS.items():
        path = ROOT / page
        text = filled(path.read_text(encoding="utf-8"), name, block(results))
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
