"""The gate path, as a page: who prepares, who cashes in."""

from functools import partial

from ...records.effects import Effects
from .. import effects as text
from ..charts import Chart
from ..page.checks import origin
from ..text import target_name
from .audit import gates_check
from .common import MOST_ROWS, and_more, readout_check
from .sheet import Drawing, Numbers, Sheet


def effects_sheet(found: Effects) -> Sheet:
    """The page of the gate path of some tokens."""
    rows = range(len(found.effects))
    names = [f"{target_name(found.targets[r])} at {found.positions[r]}" for r in rows]
    said = [text.sentence(found, row) for row in rows[:MOST_ROWS]]
    return Sheet(
        question="Who prepares the answer, and who cashes in?",
        model=found.results[0].provenance.model.id,
        says=(
            *said,
            *and_more(len(rows) - len(said)),
            text.heading(found),
        ),
        drawings=tuple(
            Drawing(names[row], partial(_chart, found, row)) for row in rows[:MOST_ROWS]
        ),
        numbers=tuple(
            Numbers(names[row], text.HEADS, text.cells(found, row), shut=row > 0)
            for row in rows
        ),
        checks=(readout_check(found.results), gates_check(found)),
        reading=tuple(text.footer(found)),
        card=(),
        origin=tuple(origin(found.results[0].provenance)),
        warnings=found.warnings,
    )


def _chart(found: Effects, row: int, theme: str) -> Chart:
    """One token's."""
    return found.figure(row=row, theme=theme)
