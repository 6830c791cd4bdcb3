"""Prove every class and write the table: `python -m conformance.run`."""

import argparse
import importlib
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from .rows import Row, make_row
from .table import counts, render

PAGE = Path(__file__).parents[1] / "docs" / "conformance.md"

FLOORS = {
    "causal": {
        "exact": 178,
        "exact in float64": 177,
        "explicit": 172,
        "split": 173,
        "heads": 135,
        "neurons": 130,
        "sources": 133,
    },
    "image-text": {
        "exact": 81,
        "exact in float64": 81,
        "explicit": 80,
        "heads": 74,
        "neurons": 68,
        "sources": 72,
    },
    "classifier": {
        "exact": 64,
        "exact in float64": 64,
        "exact with one label": 64,
        "explicit": 63,
        "split": 62,
        "heads": 52,
        "neurons": 50,
        "sources": 52,
    },
}
"""What earlier runs reached; fewer is a regression. Raise it with what is gained."""

MISPLACED = 1e-5
"""By how much a block may be missed, relative to its output: vectors add up rounded."""

UNSUMMED = 1e-6
"""What shares may miss of a credit, relative to the largest: norms in float32,
whatever they are given, leave 1e-7 of it."""

_SHARED = ("modeling_utils", "modeling_layers", "generation", "integrations.moe")
"""What every class imports: once here instead of once in every process."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit code is 1 if a class is read wrongly or fewer are exact."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="NAME", help="a model type or class")
    parser.add_argument("--json", action="store_true", help="print what was found")
    given = parser.parse_args(arguments)
    for name in _SHARED:
        importlib.import_module(f"transformers.{name}")
    rows = []
    for row in _rows(given.only):
        rows.append(row)
        if not given.json:
            print(_line(row), flush=True)
    if given.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    if given.only is None:
        versions = {name: version(name) for name in ("transformers", "torch")}
        PAGE.write_text(render(rows, versions), encoding="utf-8")
    found = complaints(rows, whole=given.only is None)
    print(*found, sep="\n", end="\n" if found else "", file=sys.stderr)
    return 1 if found else 0


def _rows(only: str | None) -> Iterable[Row]:
    """Every class, or those of one name."""
    from .tiny import KINDS, model_types

    for kind in KINDS:
        for model_type, name in model_types(kind).items():
            if only in (None, model_type, name):
                yield make_row(kind, model_type, name)


def complaints(rows: Sequence[Row], *, whole: bool) -> list[str]:
    """What must not be: wrong readings and, of a whole run, fewer exact ones."""
    found = [
        f"{row.name} is read wrongly: total variation {proof.missed:.2g}"
        for row in rows
        for proof in row.proofs
        if proof.status == "wrong"
    ]
    found += [
        f"{row.name} is split wrongly: what lies between its parts misses by "
        f"{row.single.misplaced:.2g}"
        for row in rows
        if row.single.misplaced > MISPLACED
    ]
    found += [
        f"{row.name} is opened wrongly: shares miss {row.double.unsummed:.2g} of it"
        for row in rows
        if not row.double.unsummed <= UNSUMMED
    ]
    for kind, floors in FLOORS.items() if whole else ():
        reached = counts(rows, kind)
        found += [
            f"{kind}: {reached.get(name, 0)} {name}, {floor} before"
            for name, floor in floors.items()
            if reached.get(name, 0) < floor
        ]
    return found


def _line(row: Row) -> str:
    """One class in one line."""
    proof = row.single
    what = proof.readout or proof.reason[:90]
    statuses = " ".join(f"{p.status:8}" for p in row.proofs)
    return f"{row.kind:10} {row.model_type:28} {statuses} {what}"


if __name__ == "__main__":
    sys.exit(main())
