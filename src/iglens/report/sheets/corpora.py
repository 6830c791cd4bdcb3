"""Whole runs, as pages: one summed up, and two compared token by token."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from ...records.run_difference import RunDifference
from ...records.summary import Summary
from .. import run_difference as two
from .. import summary as one
from ..charts import Chart
from ..page.checks import Check
from . import pages
from .common import NOT_CAUSES
from .sheet import Drawing, Numbers, Sheet

TITLES = {
    "credits": "What each layer added, on average",
    "levels": "What could be read after each layer, on average",
    "onsets": "After which layer tokens became readable",
    "slices": "Where groups of tokens end up",
    "null": "Beside the null",
}
"""What the charts of a summary show."""


def summary_sheet(found: Summary) -> Sheet:
    """The page of a run."""
    return Sheet(
        question="Where did the tokens of a corpus become readable?",
        model=str(found.run["model"]["id"]),
        says=(*one.sentences(found), one.heading(found)),
        drawings=tuple(
            Drawing(TITLES[kind], partial(_chart, found, kind))
            for kind in _kinds(found)
        ),
        numbers=tuple(_tables(found)),
        checks=tuple(_checks(found)),
        reading=(*one.footer(found), NOT_CAUSES),
        card=(),
        origin=tuple(_origin(found.run)),
        warnings=found.notes,
    )


def _chart(found: Summary, kind: str, theme: str) -> Chart:
    """One chart of a summary."""
    return found.figure(kind, theme=theme)


def _kinds(found: Summary) -> Iterator[str]:
    """Charts that there is something for."""
    if found.whole:
        yield from ("credits", "levels", "onsets")
        if found.slices:
            yield "slices"
        if found.null is not None:
            yield "null"


def _tables(found: Summary) -> Iterator[Numbers]:
    """Groups, then layers and depths."""
    for each in found.slices:
        lines = [*one.slice_rows(each)]
        title = f"By {each.column}"
        yield Numbers(title, one.SLICE_HEADS, lines)
        if each.contrasts:
            told = [
                [one.contrast_name(c), one.contrast_words(c)] for c in each.contrasts
            ]
            heads = ("difference", "by how much")
            yield Numbers(f"{title}: the difference", heads, told, heads)
    for group in found.whole:
        unit = f" ({group.unit})" if len(found.whole) > 1 else ""
        depths = [*one.depth_rows(group)]
        left = one.DEPTH_HEADS[-1:]
        yield Numbers(f"{TITLES['onsets']}{unit}", one.DEPTH_HEADS, depths, left)
        layers = [cells for cells, _ in one.layer_rows(found, group)]
        yield Numbers(f"{TITLES['credits']}{unit}", one.LAYER_HEADS, layers, shut=True)


def _checks(found: Summary) -> Iterator[Check]:
    """The readout, and what is missing."""
    worst = max((g.fidelity for g in found.whole), default=float("nan"))
    known = bool(np.isfinite(worst))
    yield Check(
        "readout",
        None,
        f"{worst:.1g} at worst" if known else "not verified",
        "The total variation between what is read from the last state and what the "
        "model itself says; rows beyond its tolerance were refused when the run was "
        "made, or carry a flag.",
    )
    yield Check(
        "rows explained",
        found.complete and not found.failures,
        f"{found.n_items - found.n_failures} of {found.n_total}",
        "Rows of the input that could be explained, of those that were asked for.",
    )


def _origin(run: Mapping[str, Any], side: str = "") -> Iterator[tuple[str, str]]:
    """Where the numbers of a run come from."""
    model, given = run["model"], run["input"]
    versions = ", ".join(f"{n} {v}" for n, v in (run["versions"] or {}).items())
    told = {
        "Model": model["id"],
        "Weights": model.get("weights_sha256") or "not known",
        "Input": f"{given['name']}, {given['n_lines']} lines, {given['fingerprint']}",
        "Settings": run["settings_sha256"],
        "Versions": versions,
    }
    for name, value in told.items():
        yield f"{name}{side}", str(value)


def run_difference_sheet(found: RunDifference) -> Sheet:
    """The page of two runs."""
    kinds = {"difference": "By how much each layer differs", "both": "Both runs"}
    models = (str(side.run["model"]["id"]) for side in (found.a, found.b))
    return Sheet(
        question="Where do two runs part?",
        model=" and ".join(dict.fromkeys(models)),
        says=(*two.sentences(found), *two.sides(found)),
        drawings=tuple(
            Drawing(title, partial(_both, found, kind)) for kind, title in kinds.items()
        ),
        numbers=tuple(_step_tables(found)),
        checks=(_paired(found),),
        reading=(*two.footer(found), NOT_CAUSES),
        card=(),
        origin=(*_origin(found.a.run, ", a"), *_origin(found.b.run, ", b")),
        warnings=found.notes,
    )


def _both(found: RunDifference, kind: str, theme: str) -> Chart:
    """One chart of two runs."""
    return found.figure(kind, theme=theme)


def _step_tables(found: RunDifference) -> Iterator[Numbers]:
    """Depths, then every step."""
    for group in found.groups:
        unit = f" ({group.unit})" if len(found.groups) > 1 else ""
        shifts = [*two.depth_rows(found, group)]
        yield Numbers(f"How depths shift{unit}", two.DEPTH_HEADS, shifts)
        lines = [cells for cells, _ in two.step_rows(found, group)]
        title = f"By how much each layer differs{unit}"
        yield Numbers(title, two.STEP_HEADS, lines, shut=True)


def _paired(found: RunDifference) -> Check:
    """Whether every token has a counterpart."""
    left = found.a.n_unpaired + found.b.n_unpaired
    return Check(
        "tokens paired",
        not left,
        f"{found.n_pairs}, {left} without a counterpart",
        "Only tokens that both runs explain are compared.",
    )


SUMMARY: dict[str, Callable[[Summary], str]] = pages(summary_sheet)
RUN_DIFFERENCE: dict[str, Callable[[RunDifference], str]] = pages(run_difference_sheet)
