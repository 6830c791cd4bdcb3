"""The tidy table of a summary: one line per group and segment."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .estimates import Group
from .summary import Summary
from .table import utf8

if TYPE_CHECKING:
    import pyarrow


def summary_table(summary: Summary) -> "pyarrow.Table":
    """Mean credits of every group in long form, segments in path order.

    The columns:

        of           "run", or "null" for those of a null beside it
        column       column the rows are sliced by; null for all rows
        value        value they share; see `Group.value`
        kind         kind of the group; see `Group.kind`
        unit         unit of levels and credits
        n_prompts    prompts of the group
        n_rows       explained tokens of the group
        layer        layer the segment ends at
        component    part of the layer, such as "block" or "attention"
        credit       mean credit
        low, high    its interval; NaN if there is none
        band_low, band_high
                     band that holds all segments at once; NaN if there is none
        level        mean level at the segment's end
        level_low, level_high
                     its interval
    """
    import pyarrow

    string, number = pyarrow.string(), pyarrow.float64()
    types = [("of", string), ("column", string), ("value", string), ("kind", string)]
    types += [("unit", string), ("n_prompts", pyarrow.int64())]
    types += [("n_rows", pyarrow.int64()), ("layer", pyarrow.int64())]
    types += [("component", string)]
    names = ("credit", "low", "high", "band_low", "band_high")
    types += [(n, number) for n in (*names, "level", "level_low", "level_high")]
    lines = [
        line
        for of, column, group in _groups(summary)
        for line in _lines(summary, of, column, group)
    ]
    return pyarrow.Table.from_pylist(lines, schema=pyarrow.schema(types))


def _groups(summary: Summary) -> Iterator[tuple[str, str | None, Group]]:
    """Every group, with what it is of."""
    for group in summary.whole:
        yield "run", None, group
    for one in summary.slices:
        for group in one.groups:
            yield "run", one.column, group
    for group in summary.null.groups if summary.null is not None else ():
        yield "null", None, group


def _lines(
    summary: Summary, of: str, column: str | None, group: Group
) -> Iterator[dict[str, Any]]:
    """The lines of one group."""
    credits, levels = group.credits, group.levels
    for at, segment in enumerate(summary.segments):
        yield {
            "of": of,
            "column": None if column is None else utf8(column),
            "value": utf8(group.value),
            "kind": group.kind,
            "unit": group.unit,
            "n_prompts": group.n_prompts,
            "n_rows": group.n_rows,
            "layer": segment.layer,
            "component": segment.part,
            "credit": float(credits.mean[at]),
            "low": float(credits.low[at]),
            "high": float(credits.high[at]),
            "band_low": float(credits.band_low[at]),
            "band_high": float(credits.band_high[at]),
            "level": float(levels.mean[at + 1]),
            "level_low": float(levels.low[at + 1]),
            "level_high": float(levels.high[at + 1]),
        }
