"""Two runs for people: by how much their tokens differ, where, and how sure that is."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from ..records.estimates import DEPTHS, Estimate
from ..records.run_difference import PairGroup, RunDifference, Side
from .summary import change, estimate, share_points, table_of, unit_name
from .text import format_credit, model_name
from .visible import visible

PAIRED = {
    "content": "the same token ids before them and the same target",
    "id": "the same id and the same distance from the end of the prompt",
}
"""What makes two tokens a pair."""

MOST_NAMED = 5
"""Steps that a sentence names, at most."""


def lines(found: RunDifference) -> list[str]:
    """Everything but the tables, in plain lines."""
    said = [*sides(found), *sentences(found), *footer(found)]
    return [*said, *(f"Note: {note}" for note in found.notes)]


def sides(found: RunDifference) -> tuple[str, str]:
    """What tells the two runs apart, one line each."""
    a, b = _words(found.a), _words(found.b)
    differ = [i for i in range(len(a)) if a[i] != b[i]] or [0]
    one, other = (" · ".join(side[i] for i in differ) for side in (a, b))
    return visible(f"a: {one}"), visible(f"b: {other}")


def _words(side: Side) -> tuple[str, ...]:
    """Model, reading, input and settings of a run."""
    run: Any = side.run
    model, reading = run["model"], run["reading"]
    return (
        model_name(str(model["id"])),
        f"revision {str(model.get('revision') or 'unknown')[:12]}",
        str(model.get("dtype")),
        f"weights {str(model.get('weights_sha256') or 'unknown')[:12]}",
        f"{reading['lens']} lens",
        f"{' + '.join(map(str, reading['baseline']))} baseline",
        f"by {reading['by']}",
        f"null of {run['null']['of']}",
        str(run["input"]["name"]),
        f"settings {str(run['settings_sha256'])[:12]}",
    )


def sentences(found: RunDifference) -> Iterator[str]:
    """The answer, unit by unit."""
    for group in found.groups:
        yield _first(group)
        yield _where(found, group)
        if group.n_judged:
            yield (
                "The share of correct targets changes by "
                f"{share_points(group.correct)} ({group.n_judged} pairs)."
            )


def _first(group: PairGroup) -> str:
    """How the last level changes, on average."""
    unit = group.unit
    over = (
        f"Over {group.n_pairs} pairs of tokens from {group.n_prompts} "
        f"prompt{'s' * (group.n_prompts != 1)}"
    )
    ends = f"{estimate(group.final_a, unit)} to {estimate(group.final_b, unit)}"
    told = f"{over}, the mean {unit_name(unit)} goes from {ends}"
    verdict = ""
    if group.final.bounded and group.final.low <= 0 <= group.final.high:
        verdict = "; that may be chance"
    return f"{told}, a change of {change(group.final, unit)}{verdict}."


def _where(found: RunDifference, group: PairGroup) -> str:
    """At which steps credits differ beyond what other prompts would do."""
    band = group.credits
    if not np.isfinite(band.band_low).all():
        best = int(np.nan_to_num(np.abs(band.mean)).argmax())
        return (
            f"Most of it lies at {_step(found, group, best)}; no band, too few prompts."
        )
    clear = np.flatnonzero(band.clear)
    if not len(clear):
        return "No step's credit differs beyond what other prompts would do."
    largest = clear[np.argsort(-np.abs(band.mean[clear]), kind="stable")]
    named = ", ".join(_step(found, group, at) for at in largest[:MOST_NAMED].tolist())
    more = len(clear) - MOST_NAMED
    verb = "differs" if len(clear) == 1 else "differ"
    return (
        f"{len(clear)} of {len(band.mean)} steps {verb}, all told at once: {named}"
        f"{f' and {more} more' * (more > 0)}."
    )


def _step(found: RunDifference, group: PairGroup, at: int) -> str:
    """A step with its difference."""
    amount = format_credit(float(group.credits.mean[at]), group.unit)
    return f"{_name(found.labels[at])} ({amount})"


def _name(label: str) -> str:
    """A step without the module's name."""
    return visible(label.partition(" (")[0])


def footer(found: RunDifference) -> Iterator[str]:
    """What was compared with what."""
    told = {
        "segments": "Both paths have the same segments.",
        "layers": "Both paths are taken through the layers at which both stop.",
        "fractions": "The models differ in depth: credits are added up by tenths of "
        "it, as if each layer's were spread evenly, and depths are shares of it.",
    }
    yield (
        f"Pairs have {PAIRED[found.paired_by]}; without a counterpart: "
        f"{found.a.n_unpaired} of {found.a.n_rows} in a, {found.b.n_unpaired} of "
        f"{found.b.n_rows} in b. {told[found.by]}"
    )
    for group in found.groups:
        if group.n_left_out:
            yield f"{group.n_left_out} pairs left out (levels not finite)."
    if any(group.final.bounded for group in found.groups):
        yield (
            f"In brackets: {found.level:.0%} intervals over prompts (Poisson "
            f"bootstrap, {found.n_replicates} replicates, the same weights for both); "
            "bands hold for all steps at once."
        )


STEP_HEADS = ("step", "a", "b", "b - a", "interval", "band")
"""Heads of the table of steps."""


def step_rows(
    found: RunDifference, group: PairGroup
) -> Iterator[tuple[list[str], bool]]:
    """The cells of every step, and whether it differs beyond chance."""
    band, unit = group.credits, group.unit
    banded = bool(np.isfinite(band.band_low).all())
    for at, label in enumerate(found.labels):
        means = (group.a.mean, group.b.mean, band.mean)
        cells = [
            _name(label),
            *(format_credit(float(mean[at]), unit) for mean in means),
            _range(float(band.low[at]), float(band.high[at]), unit),
            _range(float(band.band_low[at]), float(band.band_high[at]), unit),
        ]
        yield cells, not banded or bool(band.clear[at])


def _range(low: float, high: float, unit: str) -> str:
    """Two ends, or dashes."""
    if not np.isfinite(low):
        return "--"
    return f"{format_credit(low, unit)} … {format_credit(high, unit)}"


def step_table(found: RunDifference, group: PairGroup) -> Table:
    """Steps down; neighbours in which nothing differs are left out."""
    made = table_of(*STEP_HEADS)
    quiet = 0
    for cells, clear in step_rows(found, group):
        if not any(cell.strip("+-0.") for cell in cells[1:4]):
            quiet += 1
            continue
        made.add_row(*map(Text, cells), style="" if clear else "dim")
    if quiet:
        made.add_row(Text(f"{quiet} others: 0"), style="dim")
    return made


DEPTH_HEADS = ("depth", "pairs", "mean shift")
"""Heads of the table of depths."""


def depth_rows(found: RunDifference, group: PairGroup) -> Iterator[list[str]]:
    """The cells of every depth."""
    unit = "of the depth" if found.by == "fractions" else "layers"
    for name in DEPTHS:
        count = group.n_depths[name]
        told = f"{_signed(group.depths[name])} {unit}" if count else "--"
        yield [name.replace("_", " "), str(count), told]


def _signed(found: Estimate) -> str:
    """A signed number with its interval."""
    told = f"{found.value:+.2f}"
    ends = f" [{found.low:+.2f}, {found.high:+.2f}]"
    return told + ends * found.bounded


def depth_table(found: RunDifference, group: PairGroup) -> Table:
    """Depths down."""
    made = table_of(*DEPTH_HEADS)
    for cells in depth_rows(found, group):
        made.add_row(*map(Text, cells))
    return made
