"""A result in plain sentences: what a person wants to know first."""

from pathlib import PurePath

import numpy as np

from ..depths import Interval
from ..records import Attribution, Segment, Target
from ..records.answer import whole_answer
from ..records.ensemble import Sensitivity
from .visible import visible

CHURN_TOLD = 2.0
"""From this ratio of movement to change on, the sentence says that credits reverse."""

UNIT_WORDS = {
    "probability": "probability",
    "log_probability": "log-probability, nats",
    "log_odds": "log-odds, nats",
    "logit": "raw logits",
}
"""What the units of a result are called."""


def summary(attribution: Attribution) -> str:
    """Where each row's target became readable, one sentence a row, and the checks."""
    from . import components  # both are written with the words below
    from .through_lens import lens_sentences

    lines = [heading(attribution), *sentences(attribution)]
    lines += lens_sentences(attribution)
    if attribution.components is not None:
        lines += components.lines(attribution)
    lines.append(verification(attribution))
    lines += [f"Warning: {warning}" for warning in attribution.warnings]
    return "\n".join(lines)


def sentences(attribution: Attribution) -> list[str]:
    """One sentence a row; of an answer also one for the whole, and for split words."""
    from .answer import answer_sentence, word_sentence  # written with the words below

    rows = [sentence(attribution, row) for row in range(attribution.n_rows)]
    if (answer := whole_answer(attribution)) is None:
        return rows
    lines = [answer_sentence(answer)]
    for word in answer.words():
        pieces = rows[word.start : word.stop]
        if len(pieces) > 1:
            lines.append(word_sentence(word, attribution.segments))
            pieces = [f"  {piece}" for piece in pieces]
        lines += pieces
    return lines


def heading(attribution: Attribution) -> str:
    """Model, unit, baseline and path, in one line."""
    model = attribution.provenance.model
    path = f"{model.n_layers} layers"
    if len(set(attribution.layers) - {0}) < model.n_layers:
        path += f" in {len(set(attribution.layers) - {0})} steps"
    pieces = [
        visible(model_name(model.id)),
        path,
        UNIT_WORDS[attribution.unit],
        f"{attribution.baseline_kind} baseline",
        f"{visible(attribution.lens)} lens",
    ]
    if attribution.estimator != "observed":
        pieces.append(attribution.estimator)
    return " · ".join(pieces)


def model_name(name: str) -> str:
    """A model's name; of a path on this disk, its last part."""
    return PurePath(name).name if PurePath(name).is_absolute() else name


def sentence(attribution: Attribution, row: int) -> str:
    """Between which layers one row's target became readable."""
    final, base = attribution.final[row], attribution.baseline[row]
    unit, target = attribution.units[row], attribution.targets[row]
    level = f"{target_name(target)}: {format_level(final, unit)}"
    if unit != attribution.unit:
        level += f" {visible(unit)}"
    depths = attribution.depths[row]
    if not (np.isfinite(final) and np.isfinite(base)):
        return f"{level}; the levels are not finite, so no layer can be named."
    if depths.churn is None or depths.commit is None:
        return f"{level}; the layers change it by no more than rounding."
    rises = final >= base
    if depths.churn > CHURN_TOLD:
        fall = f"half of its fall from {format_level(base, unit)}"
        return (
            f"{level}; it comes and goes (churn {depths.churn:.1f}); "
            f"{'half of it' if rises else fall} stays from {_step(depths.commit)} on."
        )
    credits = attribution.credits[row]
    best = int((credits if rises else -credits).argmax())
    segment = attribution.segments[best]
    if target.kind not in ("token", "set"):
        return (
            f"{level}; {format_credit(credits[best], unit)} of its change of "
            f"{format_credit(final - base, unit)} lies {between(segment)}."
        )
    verb = "became readable" if rises else "was lost again"
    amount = format_level(abs(credits[best]), unit)
    if unit != "probability":
        amount += f" of a change of {format_credit(final - base, unit)}"
    elif rises and credits[best] <= final:
        amount += " of it"
    return f"{level}; {amount} {verb} {between(segment)}."


def target_name(target: Target) -> str:
    """A target for a sentence: tokens in quotes, which show where spaces are."""
    if target.against:
        return f"'{visible(target.text)}' against '{visible(target.against_text)}'"
    return f"'{visible(target.text)}'" if target.of_tokens else visible(target.text)


def sensitivity(found: Sensitivity) -> str:
    """What depends on the baseline, one line a row and baseline."""
    lines = [f"Baselines compared, {found.unit}: start, and the embedding's credit"]
    for row, (name, position, unit) in enumerate(
        zip(found.targets, found.positions, found.units, strict=True)
    ):
        for index, kind in enumerate(found.kinds):
            start, first = found.baseline[row, index], found.first[row, index]
            sign = "-" if first < 0 else "+"
            own = "" if unit == found.unit else f" {visible(unit)}"
            lines.append(
                f"  '{visible(name)}' at {position} from {kind}: "
                f"{format_level(start, unit)} {sign}{format_level(abs(first), unit)}"
                f"{own}"
            )
    moved = found.moved.max(initial=0.0)
    lines.append(f"Every later credit is the same, within {moved:.1g}.")
    return "\n".join(lines)


def between(segment: Segment) -> str:
    """Where a segment lies, in words."""
    if segment.layer == 0:
        return "at the embedding"
    if segment.is_part:
        return f"in the {segment.part} of layer {segment.layer}"
    if segment.after is None:
        return f"between the baseline and layer {segment.layer}"
    return f"between layers {segment.after} and {segment.layer}"


def verification(attribution: Attribution) -> str:
    """What was checked, and how well it came out."""
    readout = attribution.readout
    worst = attribution.fidelity.max(initial=0.0)
    sums = abs(attribution.completeness).max(initial=0.0)
    gap = attribution.precision_gap.max(initial=0.0)
    if np.isnan(worst):
        checked = "Not verified against the model's own output."
    else:
        word = "Verified" if worst <= readout.tolerance else "NOT the model's own"
        what = "total variation from its own distribution"
        if readout.measure == "logit":
            what = "largest difference from its own logits"
        checked = f"{word}: {what} {worst:.1g} (tolerance {readout.tolerance:.1g})."
    return (
        f"{checked}\nCredits add up within {sums:.1g}; precision gap {gap:.1g}; "
        f"{readout.kind} readout in {readout.dtype}."
    )


def format_level(value: float, unit: str) -> str:
    """A level with as many digits as a reader needs."""
    if unit != "probability":
        return f"{value:.2f}"
    return f"{value:.2f}" if value >= 0.01 or value == 0 else f"{value:.1g}"


def format_credit(value: float, unit: str) -> str:
    """A signed credit."""
    if unit == "percent":
        return f"{value:+.1f}"
    return f"{value:+.3f}" if unit == "probability" else f"{value:+.2f}"


def below(attribution: Attribution) -> str:
    """What is shown of a level that was pruned, and of a credit next to it."""
    return f"< {format_level(attribution.readout.pruned_below, 'probability')}"


def level_of(attribution: Attribution, row: int, point: int) -> str:
    """A level with as many digits as a reader needs; a bound as such."""
    if attribution.pruned[row, point]:
        return below(attribution)
    value = float(attribution.levels[row, point])
    return format_level(value, attribution.units[row])


def credit_of(attribution: Attribution, row: int, segment: int) -> str:
    """A signed credit; one that cannot be told from 0 without a sign."""
    if attribution.unsigned[row, segment]:
        return below(attribution)
    value = float(attribution.credits[row, segment])
    return format_credit(value, attribution.units[row])


def exact_credit(value: float, unit: str) -> str:
    """A signed credit; one digit of what would round to zero."""
    told = format_credit(value, unit)
    return told if float(told) or not value else f"{value:+.0e}"


def _step(interval: Interval) -> str:
    """The layer at which something holds."""
    return f"layer {interval.upto}" if interval.upto else "the embedding"
