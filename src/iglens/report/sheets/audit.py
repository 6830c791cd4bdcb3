"""An audit, as a page: credits beside effects, and how far their orders agree."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from ...records.audit import Audit
from ...records.effects import Effects
from .. import audit as text
from ..charts import Chart
from ..page.checks import Check, origin
from ..text import format_credit
from .common import readout_check
from .sheet import Drawing, Numbers, Sheet


def audit_sheet(found: Audit) -> Sheet:
    """The page of an audit."""
    heads, *lines = text.agreement(found)
    table_heads, table_lines = text.cells(found)
    return Sheet(
        question="What depends on which layer, and what is readable where?",
        model=found.results[0].provenance.model.id,
        says=(_answer(found), text.heading(found), *text.sentences(found)),
        drawings=(Drawing("Credits beside effects", partial(_chart, found)),),
        numbers=(
            Numbers("How far orders agree", heads, lines),
            Numbers("Layers", table_heads, table_lines, shut=True),
        ),
        checks=tuple(_checks(found)),
        reading=tuple(text.footer(found)),
        card=(),
        origin=(
            *((n, v) for n, v in origin(found.results[0].provenance) if n != "Prompt"),
            *_texts(found),
            ("Seed", str(found.seed)),
        ),
        warnings=found.warnings,
    )


def _chart(found: Audit, theme: str) -> Chart:
    """The dots."""
    return found.figure(theme=theme)


def _answer(found: Audit) -> str:
    """The largest credit and the largest effect, in one sentence."""
    labels = [text.name(found, at) for at in range(len(found.segments))]
    best = [
        int(np.nan_to_num(np.abs(numbers.mean(0))).argmax())
        for numbers in (found.credits, found.effects.effects)
    ]
    credit, effect = (
        format_credit(float(numbers.mean(0)[at]), found.unit)
        for numbers, at in zip(
            (found.credits, found.effects.effects), best, strict=True
        )
    )
    over = "" if len(found.results) == 1 else f", in the mean over {len(found.results)}"
    return (
        f"Most becomes readable at {labels[best[0]]} ({credit}), and most is lost "
        f"without {labels[best[1]]} ({effect}){over}."
    )


def _texts(found: Audit) -> Iterator[tuple[str, str]]:
    """Every text."""
    for number, result in enumerate(found.results, 1):
        prompt = result.provenance.prompt or "given as token ids"
        yield f"Text {number}", prompt[:500]


def _checks(found: Audit) -> Iterator[Check]:
    """The readout, the identities, and the gate path's certificate."""
    yield readout_check(found.results)
    same = found.identities
    worst = float(np.abs(np.column_stack([same.readout, same.last])).max(initial=0.0))
    yield Check(
        "identities",
        not bool(same.beyond.any()),
        f"within {worst:.1g}",
        "A model whose later blocks are skipped says what the readout says, and the "
        "effect of the last block is its credit.",
    )
    if found.gates is not None:
        yield gates_check(found.gates)


def gates_check(gates: Effects) -> Check:
    """Whether the gate path was integrated well enough."""
    closed, apart = (
        float(np.abs(side).max(initial=0.0)) for side in (gates.closed, gates.apart)
    )
    return Check(
        "gate path certified",
        bool(gates.certified.all()),
        f"{max(closed, apart):.1g}, at most {gates.tolerance:.1g}",
        "What the sum missed before it was closed, and what two rules of integration "
        "differ by.",
    )
