"""Methods side by side: a table for the terminal, a page in Markdown or HTML."""

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..records.comparison import Comparison, Summary
from .tables import markdown_table as table_of
from .visible import marked, visible

HEADS = (
    "method", "unit", "sum", "error", "mono", "peak", "audit", "fwd", "bwd", "head",
    "sec",
)  # fmt: skip
"""Columns; sum and error are in probability."""

LEFT = {"method", "unit"}


def sentences(found: Comparison) -> list[str]:
    """What is compared, and how to read the table."""
    model = visible(found.provenance.model.id)
    name = marked(found.target.name, 24)
    return [
        f"{model} · {name} at position {found.position} · probability "
        f"{found.baseline:.4g} at the embedding, {found.final:.4g} at the end: a "
        f"change of {found.change:+.4g}",
        "sum: over all layers, in probability; error: sum less the change of "
        "probability along the method's own path. In brackets: a level per layer, "
        "which promises no sum. mono: no layer goes against the whole. fwd, bwd, head: "
        "passes through the model, back through it, and products with the unembedding.",
        *_audit(found),
    ]


def _audit(found: Comparison) -> list[str]:
    """What methods' layers are held against, and what that cost."""
    if found.audited is None:
        return []
    cost, reason = found.audited.cost, found.audited.reason
    if reason is not None:
        return [f"audit: not here. {visible(reason)}"]
    return [
        "audit: Spearman's correlation of each method's layers with what the token "
        "loses when a layer is skipped, of all layers and without the last, where "
        f"credit and effect agree by identity. It took {cost.forwards} fwd and "
        f"{cost.seconds:.1f} s more."
    ]


def notes(found: Comparison) -> list[str]:
    """What has to be said of single methods."""
    said = []
    for conversion in dict.fromkeys(s.conversion for s in found.table if s.conversion):
        names = [s.title for s in found.table if s.conversion == conversion]
        said.append(f"{', '.join(names)}: logits to probability by {conversion}.")
    for entry in found.entries:
        if entry.found is not None:
            said += [f"{entry.title}: {note}" for note in entry.found.notes]
        else:
            said.append(f"{entry.title}: not here. {entry.reason}")
    return [visible(line) for line in dict.fromkeys(said)]


def cells(summary: Summary) -> tuple[str, ...]:
    """What the table shows of one method."""
    cost = summary.cost
    if summary.kind is None:
        return (summary.title, *[""] * (len(HEADS) - 1))
    unit = summary.unit or ""
    return (
        summary.title,
        unit,
        f"({_signed(summary.total)})"
        if summary.kind == "reading"
        else _signed(summary.total),
        _error(summary.error),
        "yes" if summary.monotone else "no",
        str(summary.peak),
        f"{_rho(summary.agreement)} {_rho(summary.agreement_without_last)}",
        str(cost.forwards),
        str(cost.backwards),
        str(cost.head),
        _seconds(cost.seconds),
    )


def _seconds(value: float) -> str:
    """Seconds in three signs, so that a slow machine has the same table."""
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def _rho(value: float) -> str:
    """A correlation in four signs, as +.38; dashes where it is not known."""
    return f"{value:+.2f}".replace("0.", ".")[:4] if np.isfinite(value) else "  --"


def _error(value: float) -> str:
    """An error with its sign, as digits where it is large enough to be read so."""
    if not np.isfinite(value):
        return f"!{value}"
    if value == 0:
        return "0"
    return _signed(value) if abs(value) >= 1e-4 else f"{value:+.0e}"


def _signed(value: float) -> str:
    """A number with its sign, in seven signs below a thousand."""
    return f"{value:+.4f}" if abs(value) < 9.99995 else f"{value:+.3f}"


def render(found: Comparison) -> RenderableType:
    """The table for a terminal, between what is compared and the notes."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for head in HEADS:
        left = head in LEFT
        table.add_column(
            head,
            justify="left" if left else "right",
            no_wrap=head != "method",
            overflow="fold",
        )
    for summary in found.table:
        style = "dim" if summary.kind is None else ""
        table.add_row(*(Text(cell) for cell in cells(summary)), style=style)
    before = [Text(line) for line in sentences(found)]
    after = [Text(line, style="dim") for line in notes(found)]
    return Group(*before, Text(), table, Text(), *after)


def by_layer(found: Comparison) -> tuple[list[str], list[list[str]]]:
    """Every layer's number by every method, in the method's unit: heads and lines."""
    shown = [entry for entry in found.entries if entry.found is not None]
    heads = ["layer", *(entry.title for entry in shown)]
    sums = [found.by_layer(e.found) for e in shown if e.found is not None]
    if found.skip_effects:
        heads.append("skip effect")
        sums.append(found.skip_effects)
    lines = [
        [str(layer), *(_value(one.get(layer)) for one in sums)]
        for layer in range(found.n_layers + 1)
        if any(layer in one for one in sums)
    ]
    return heads, lines


def _value(value: float | None) -> str:
    """A number, or nothing where the method has none."""
    return "" if value is None else f"{value:+.4g}"


def markdown_table(found: Comparison) -> str:
    """The table of methods."""
    return table_of(HEADS, map(cells, found.table), LEFT)
