"""A whole run for people: where its tokens became readable, and how sure that is."""

from collections.abc import Iterator

import numpy as np
from rich.table import Table
from rich.text import Text

from ..records import Segment
from ..records.estimates import DEPTHS, Contrast, Estimate, Group, crossing
from ..records.summary import Slice, Summary
from .cells import lines_of
from .text import UNIT_WORDS, format_credit, format_level, model_name
from .visible import visible

NAMES = {
    "onset_mass": "half of all movement is done",
    "onset_net": "half of the change is there",
    "commit": "half of the change is there to stay",
    "prediction_depth": "the target is and stays the likeliest",
}
"""What the depths say, in few words."""

WIDEST = 28
"""Characters of a value that name a group."""


def lines(summary: Summary) -> list[str]:
    """Everything but the tables, in plain lines."""
    found = [heading(summary), *sentences(summary)]
    for one in summary.slices:
        found += ["", f"By {visible(one.column)}:", *(slice_lines(one))]
    return [*found, *footer(summary), *(f"Note: {note}" for note in summary.notes)]


def heading(summary: Summary) -> str:
    """What was run, in one line."""
    run = summary.run
    model, reading = run["model"], run["reading"]
    null = (run.get("null") or {}).get("of", "none")
    pieces = [
        model_name(str(model["id"])),
        f"{model['n_layers']} layers",
        UNIT_WORDS.get(reading["unit"], str(reading["unit"])),
        f"{' + '.join(map(str, reading['baseline']))} baseline",
        f"{reading['lens']} lens",
        str(run["input"]["name"]),
    ]
    if null != "none":
        pieces.append(f"null of {null}")
    return visible(" · ".join(pieces))


def sentences(summary: Summary) -> Iterator[str]:
    """The answer, then what else holds over all rows."""
    if not summary.whole:
        yield f"No row could be explained: {_failed(summary)}."
    for group in summary.whole:
        yield first_sentence(summary, group)
        yield _ends(group)
        yield from _shares(group)
        yield _movement(group)
    yield from null_sentences(summary)


def first_sentence(summary: Summary, group: Group) -> str:
    """Between which layers half of the change lies, over all prompts."""
    over, mean = f"Over {counted(group)}", f"the mean {unit_name(group.unit)}"
    if not group.n_rows:
        return f"{over}, no level is finite, so no layer can be named."
    found = crossing(group.credits.mean, summary.segments)
    known = bool(np.isfinite(group.credits.band_low).all())
    if found is None or (known and not group.credits.clear.any()):
        return f"{over}, no layer changes {mean} beyond what other prompts would."
    where = between(found.after, found.upto)
    start, end = (float(group.levels.mean[at]) for at in (0, -1))
    told = f"{format_level(start, group.unit)} to {format_level(end, group.unit)}"
    if group.unit == "probability" and found.change > 0 and start <= end / 10:
        return f"{over}, half of the probability became readable {where} ({told})."
    way = "rise" if found.change > 0 else "fall"
    return f"{over}, half of the {way} of {mean} lies {where} ({told})."


def counted(group: Group) -> str:
    """How many prompts and tokens."""
    return (
        f"{group.n_prompts} prompt{'s' * (group.n_prompts != 1)} "
        f"({group.n_rows} token{'s' * (group.n_rows != 1)})"
    )


def between(after: int | None, upto: int) -> str:
    """Where a stretch of the path lies, in words."""
    if upto == 0:
        return "at the embedding"
    start = "the baseline" if after is None else f"layers {after}"
    return f"between {start} and {'layer ' * (after is None)}{upto}"


def unit_name(unit: str) -> str:
    """The unit in a sentence."""
    return visible(UNIT_WORDS.get(unit, unit).partition(",")[0])


def _ends(group: Group) -> str:
    """The mean at the end, and how many targets the model would say itself."""
    said = (
        f"Mean {unit_name(group.unit)} at the end: {estimate(group.final, group.unit)}"
    )
    if group.n_judged:
        said += f"; the model's most probable token is the target in {percent(group)}"
    return f"{said}."


def percent(group: Group) -> str:
    """The share of correct targets."""
    return f"{share(group.correct)} of {group.n_judged}"


def share(found: Estimate) -> str:
    """A share in percent, with its interval."""
    told = f"{found.value:.0%}"
    return f"{told} [{found.low:.0%}, {found.high:.0%}]" if found.bounded else told


def share_points(found: Estimate) -> str:
    """A difference of shares in percent points, with its interval."""
    told = f"{100 * found.value:+.0f}"
    ends = (
        f" [{100 * found.low:+.0f}, {100 * found.high:+.0f}]" if found.bounded else ""
    )
    return f"{told}{ends} points"


def estimate(found: Estimate, unit: str) -> str:
    """A level with its interval."""
    told = format_level(found.value, unit)
    if not found.bounded:
        return told
    return f"{told} [{format_level(found.low, unit)}, {format_level(found.high, unit)}]"


def change(found: Estimate, unit: str) -> str:
    """A signed number with its interval."""
    told = format_credit(found.value, unit)
    if not found.bounded:
        return told
    ends = (format_credit(end, unit) for end in (found.low, found.high))
    return f"{told} [{', '.join(ends)}]"


def _shares(group: Group) -> Iterator[str]:
    """What each kind of part has."""
    if group.shares:
        told = ", ".join(
            f"{visible(one.part)} {share(one.net)} (of absolute credit "
            f"{share(one.absolute)})"
            for one in group.shares
        )
        yield f"Share of the credit: {told}."


def _movement(group: Group) -> str:
    """How much comes and goes."""
    middle, high = (group.churn.quantiles[at] for at in (2, 4))
    over = group.overshoot.quantiles
    return (
        f"Churn (movement over change): median {middle:.2f}, 95% below {high:.2f}; "
        f"overshoot: median {format_level(over[2], group.unit)}, 95% below "
        f"{format_level(over[4], group.unit)}."
    )


def null_sentences(summary: Summary) -> Iterator[str]:
    """Where the run differs from its null."""
    if summary.null is None:
        return
    what = {
        "targets": "with other rows' targets",
        "weights": "of the same model with random weights",
    }[summary.null.of]
    for null in summary.null.groups:
        found = summary.null.clears(null.unit)
        mean = estimate(null.final, null.unit)
        start = f"In the null ({what}) the mean ends at {mean}"
        if found is None:
            yield f"{start}; too few prompts for a band."
            continue
        own = [s for s, clear in zip(summary.segments, found, strict=True) if clear]
        verb = "differs" if len(own) == 1 else "differ"
        told = f"{len(own)} of {len(found)} segments {verb} from it"
        if 0 < len(own) <= 8:
            told += f" ({', '.join(map(segment_name, own))})"
        yield f"{start}; {told}, all told at once."


def segment_name(segment: Segment) -> str:
    """A segment in few words."""
    if segment.layer == 0:
        return "embedding"
    return visible(f"layer {segment.layer}{f' {segment.part}' * bool(segment.is_part)}")


def slice_lines(one: Slice) -> Iterator[str]:
    """A sentence per group, and the difference of two."""
    for group in one.groups:
        correct = f", correct {share(group.correct)}" if group.n_judged else ""
        yield (
            f"  {group_name(group)}: {counted(group)}, ends at "
            f"{estimate(group.final, group.unit)}{correct}"
        )
    yield from map(contrast_line, one.contrasts)


def group_name(group: Group) -> str:
    """A group in few words; values in quotes, so that none looks like a rest."""
    told = visible(group.value)
    told = told if len(told) <= WIDEST else f"{told[: WIDEST - 1]}…"
    return f"'{told}'" if group.kind == "value" else told


def contrast_line(found: Contrast) -> str:
    """How two groups differ."""
    return f"  {contrast_name(found)}: {contrast_words(found)}"


def contrast_name(found: Contrast) -> str:
    """Which group less which."""
    return f"'{visible(found.b)}' less '{visible(found.a)}'"


def contrast_words(found: Contrast) -> str:
    """A difference of two groups in words."""
    told = f"{change(found.final, found.unit)} at the end"
    onset = found.depths["onset_net"]
    if np.isfinite(onset.value):
        ends = f" [{onset.low:+.2f}, {onset.high:+.2f}]" if onset.bounded else ""
        told += f"; mean onset {onset.value:+.2f}{ends} layers"
    return told


def footer(summary: Summary) -> Iterator[str]:
    """What the numbers rest on."""
    if any(group.final.bounded for group in summary.whole):
        yield (
            f"In brackets: {summary.level:.0%} intervals over prompts (Poisson "
            f"bootstrap, {summary.n_replicates} replicates); bands hold for all "
            "segments at once."
        )
    for group in summary.whole:
        worst = f"{group.fidelity:.1g}" if np.isfinite(group.fidelity) else "unknown"
        flags = ", ".join(f"{visible(k)} {n}" for k, n in group.flags.items()) or "none"
        left = f"; {group.n_left_out} tokens left out (levels not finite)"
        yield (
            f"Worst fidelity {worst}; flags: {flags}{left * bool(group.n_left_out)}."
        )
    if summary.whole and summary.failures:
        yield f"Not explained: {_failed(summary)}."


def _failed(summary: Summary) -> str:
    """How many rows failed, and of what."""
    kinds = ", ".join(f"{visible(k)} {n}" for k, n in summary.failures.items())
    return f"{summary.n_failures} of {summary.n_items} rows failed ({kinds})"


LAYER_HEADS = ("layers", "credit", "interval", "band", "level")
"""Heads of the table of layers."""


def layer_table(summary: Summary, group: Group) -> Table:
    """Segments down: mean credit, its interval, the band, and the level it leads to."""
    made = table_of(*LAYER_HEADS)
    for cells, clear in layer_rows(summary, group):
        made.add_row(*map(Text, cells), style="" if clear else "dim")
    return made


def layer_rows(summary: Summary, group: Group) -> Iterator[tuple[list[str], bool]]:
    """The cells of every line, and whether its credit is beyond what others would do.

    Neighbouring segments in which nothing happens share a line, which has no interval.
    """
    credits, unit = group.credits, group.unit
    scale = np.abs(np.nan_to_num(credits.mean)).max(initial=0.0) or 1.0
    banded = bool(np.isfinite(credits.band_low).all())
    for line in lines_of(summary.segments, credits.mean[None], np.array([scale])):
        at, single = line.members[-1], len(line.members) == 1
        ends = [
            _range(float(low[at]), float(high[at]), unit) if single else ""
            for low, high in (
                (credits.low, credits.high),
                (credits.band_low, credits.band_high),
            )
        ]
        mean = float(credits.mean[list(line.members)].sum())
        level = format_level(float(group.levels.mean[at + 1]), unit)
        cells = [line.label, format_credit(mean, unit), *ends, level]
        yield cells, single and (not banded or bool(credits.clear[at]))


def _range(low: float, high: float, unit: str) -> str:
    """Two ends, or dashes."""
    if not np.isfinite(low):
        return "--"
    return f"{format_credit(low, unit)} … {format_credit(high, unit)}"


def depth_table(group: Group) -> Table:
    """Depths down: where half of the rows have it, and how many have none."""
    made = table_of(*DEPTH_HEADS[:-1])
    for *cells, _ in depth_rows(group):
        made.add_row(*map(Text, cells))
    return made


DEPTH_HEADS = ("depth", "median layer", "mean", "none", "that is, where")
"""Heads of the table of depths."""


def depth_rows(group: Group) -> Iterator[list[str]]:
    """The cells of every depth."""
    for name in DEPTHS:
        one = group.depths[name]
        middle = "--" if one.median is None else str(one.median)
        mean = f"{one.mean.value:.2f}" if np.isfinite(one.mean.value) else "--"
        if one.mean.bounded:
            mean += f" [{one.mean.low:.2f}, {one.mean.high:.2f}]"
        missing = str(one.missing)
        yield [name.replace("_", " "), middle, mean, missing, NAMES[name]]


def slice_table(one: Slice) -> Table:
    """Groups down."""
    made = table_of(*SLICE_HEADS)
    for cells in slice_rows(one):
        made.add_row(*map(Text, cells))
    return made


SLICE_HEADS = ("value", "prompts", "tokens", "final", "correct", "onset", "churn")
"""Heads of the table of groups."""


def slice_rows(one: Slice) -> Iterator[list[str]]:
    """The cells of every group."""
    for group in one.groups:
        onset = group.depths["onset_net"].mean
        unit = "" if group.unit == one.groups[0].unit else f" {visible(group.unit)}"
        yield [
            group_name(group) + unit,
            str(group.n_prompts),
            str(group.n_rows),
            estimate(group.final, group.unit),
            share(group.correct) if group.n_judged else "--",
            f"{onset.value:.2f}" if np.isfinite(onset.value) else "--",
            f"{group.churn.quantiles[2]:.2f}" if group.churn.n else "--",
        ]


def table_of(*heads: str) -> Table:
    """A table without frames, first column left and the others right."""
    made = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    for at, head in enumerate(heads):
        made.add_column(head, justify="right" if at else "left", no_wrap=True)
    return made
