"""An audit for people: credits beside effects, and how far their orders agree."""

from collections.abc import Callable, Iterator

import numpy as np
from rich.table import Table
from rich.text import Text

from ..records.audit import Audit, Correlation
from .text import format_credit, format_level, target_name
from .visible import visible

TOLD = 5
"""Segments told of a text's invisible work, at most."""

KINDS = {"skip": "skipped", "mean": "replaced by its mean update"}


def lines(audit: Audit) -> list[str]:
    """Everything but the table of layers, in plain lines."""
    rows = agreement(audit)
    width = max(len(row[0]) for row in rows)
    agreed = [f"{name:{width}}  {'  '.join(own)}" for name, *own in rows]
    return [heading(audit), *agreed, *sentences(audit), *footer(audit)]


def heading(audit: Audit) -> str:
    """What was done, in one line."""
    how, n_texts = KINDS[audit.effects.kind], len(audit.results)
    where = "all tokens" if audit.effects.at == "all" else "the last token"
    texts = "1 text" if n_texts == 1 else f"{n_texts} texts"
    model = audit.results[0].provenance.model
    return (
        f"{model.id} · {model.dtype} · {audit.unit} · {texts} · "
        f"every segment {how} at {where}"
    )


def sentences(audit: Audit) -> Iterator[str]:
    """Per text what each end of the model says, then what credits do not see."""
    for text, result in enumerate(audit.results):
        intact, removed = (
            format_level(float(side[text]), audit.unit)
            for side in (audit.effects.intact, audit.effects.removed)
        )
        yield (
            f"{target_name(result.targets[0])} at {int(result.positions[0])}: {intact} "
            f"as it is, {removed} without any of them."
        )
    yield from _reasons(audit)
    yield from _invisible(audit)
    yield from _curves(audit)


def agreement(audit: Audit) -> list[list[str]]:
    """Of every method and its nulls: correlations of all layers, and without the last.

    The first line holds the heads.
    """
    found = [["Spearman with effect", "all layers", "without the last"]]
    both = zip(audit.correlations[::2], audit.correlations[1::2], strict=True)
    for whole, below in both:
        found.append([whole.method, _mean(whole), _mean(below)])
        for name, of in _NULLS.items():
            pair = [of(whole), of(below)]
            if np.isfinite(pair).any():
                found.append([f"  {name}", *map(_rho, pair)])
    return found


_NULLS: dict[str, Callable[[Correlation], float]] = {
    "other texts' targets": lambda one: one.null,
    "random weights": lambda one: one.random,
}


def _mean(one: Correlation) -> str:
    """A mean, and the interval that it may lie in."""
    said = _rho(one.mean)
    return f"{said} [{_rho(one.low)}, {_rho(one.high)}]" if one.low == one.low else said


def _rho(value: float) -> str:
    """A correlation, or dashes."""
    return f"{value:+.2f}" if np.isfinite(value) else "--"


def _reasons(audit: Audit) -> Iterator[str]:
    """Why methods have no numbers of some text."""
    known = {one.method: one.reason for one in audit.correlations if one.reason}
    for method, reason in known.items():
        yield f"{method}: not here, or not for every text. {visible(reason)}"


def _identities(audit: Audit) -> str:
    """How well agrees what agrees by construction."""
    found = audit.identities
    layers = ", ".join(map(str, found.layers))
    readout, last = (float(np.abs(side).max()) for side in (found.readout, found.last))
    word = "NOT identical" if found.beyond.any() else "Self-test"
    return (
        f"{word}: the model with all blocks after layers {layers} skipped differs from "
        f"the readout there by {readout:.1g}, the effect of the last block from its "
        f"credit by {last:.1g} (rounding: {float(found.noise_floor.max()):.1g})."
    )


def _invisible(audit: Audit) -> Iterator[str]:
    """The segments whose work the readout does not see."""
    for text, result in enumerate(audit.results):
        found = [one for one in audit.invisible if one.text == text]
        if not found:
            continue
        shown = ", ".join(
            f"{name(audit, one.segment)} (effect "
            f"{format_credit(one.effect, audit.unit)}, credit "
            f"{format_credit(one.credit, audit.unit)})"
            for one in found[:TOLD]
        )
        more = f" and {len(found) - TOLD} more" if len(found) > TOLD else ""
        target = target_name(result.targets[0])
        yield f"Invisible work for {target}: {shown}{more}."


def _curves(audit: Audit) -> Iterator[str]:
    """Mean levels along the curves."""
    for kind in dict.fromkeys(curve.kind for curve in audit.curves):
        areas = ", ".join(
            f"{curve.order} {format_level(curve.area, audit.unit)}"
            for curve in audit.curves
            if curve.kind == kind
        )
        better = "lower" if kind == "deletion" else "higher"
        yield f"Mean level along {kind}, by order ({better} is better): {areas}."


def footer(audit: Audit) -> Iterator[str]:
    """What the numbers are and are not."""
    yield _identities(audit)
    if len(audit.results) > 1:
        yield "In brackets: 95% of the means of texts drawn again (bootstrap)."
    yield (
        "An effect is what is lost without a segment, through all later layers; a "
        "credit is what became readable there. Models without a block are off the "
        "distribution they were made for."
    )
    if audit.gates is not None:
        closed, apart = (
            float(np.abs(side).max())
            for side in (audit.gates.closed, audit.gates.apart)
        )
        yield (
            f"Gate path: sum off by {closed:.1g} before it was closed, two rules "
            f"differ by {apart:.1g}; {sum(audit.gates.runs)} runs. Its ledger (gates "
            "less credit) sums to zero."
        )


def agreement_table(audit: Audit) -> Table:
    """The correlations: a line for every method, and for its nulls."""
    heads, *rows = agreement(audit)
    made = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    for head in heads:
        made.add_column(head, no_wrap=True)
    for row in rows:
        made.add_row(*map(Text, row), style="dim" if row[0].startswith(" ") else "")
    return made


def cells(audit: Audit) -> tuple[list[str], list[list[str]]]:
    """Layers down: means over the texts, or the numbers of one text.

    Returns:
        Heads, and lines.
    """
    columns = {"credit": audit.credits, "effect": audit.effects.effects}
    if audit.gates is not None and audit.ledger is not None:
        columns |= {"gates": audit.gates.effects, "ledger": audit.ledger}
    mean = "mean " if len(audit.results) > 1 else ""
    heads = ["layer", *(f"{mean}{name}" for name in columns), "update size"]
    lines = [
        [
            name(audit, at).removeprefix("layer "),
            *(
                format_credit(float(numbers[:, at].mean()), audit.unit)
                for numbers in columns.values()
            ),
            f"{float(audit.sizes[:, at].mean()):.3g}",
        ]
        for at in range(len(audit.segments))
    ]
    return heads, lines


def table(audit: Audit) -> Table:
    """The same for a terminal."""
    heads, lines = cells(audit)
    made = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for head in heads:
        made.add_column(head, justify="right")
    for line in lines:
        made.add_row(*map(Text, line))
    return made


def name(audit: Audit, at: int) -> str:
    """A segment in a few words."""
    segment = audit.segments[at]
    part = f" {segment.part}" if segment.is_part else ""
    return visible(f"layer {segment.layer}{part}")
