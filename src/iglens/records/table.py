"""The tidy table: one line per row and segment, for other people's tools."""

from typing import TYPE_CHECKING

import numpy as np

from .attribution import Attribution

if TYPE_CHECKING:
    import pyarrow


def tidy_table(attribution: Attribution) -> "pyarrow.Table":
    """Credits in long form, rows after one another, segments in path order.

    A segment that was opened has a line for each part that is listed, and one for the
    others. Within one `row`, `baseline + credit.sum()` is `final`. The columns:

        prompt        text the user gave; null if it was none
        position      index of the predicted token
        token         text of the target
        unit          unit of the row's levels and credits
        layer         layer the segment ends at
        component     part of the layer, such as "block" or "attention"
        inside        kind of what the line is inside that, such as "head"; "others"
                      for the rest; null for all of it
        index         number of the head, neuron or expert; null if there is none
        source        index of the token read from; null if there is none
        router_weight weight that the router gave the expert; NaN if it is none
        level         the target's level at the segment's end
        credit        what the segment, or that part of it, added
        write         what of the segment's credit the block wrote; the rest is the
                      lens's; NaN inside a segment
        baseline      level of the first point
        final         level of the last state
        model_value   level in the model's own output
        fidelity      total variation between readout and model; NaN if unknown
        module        the model's name for the block; null if unknown
        row           number of the row in the result
        pruned        whether the level is an upper bound, certified below the tolerance

    Numbers that are not finite stay what they are.
    """
    import pyarrow

    string = pyarrow.string()
    lines = _lines(attribution)
    rows, places = lines["row"], lines["segment"]
    whole = lines["part"] == len(_kinds(attribution)) + 1

    def per_row(values: np.ndarray) -> np.ndarray:
        return values[rows]

    def words(texts: list[str | None], at: np.ndarray) -> "pyarrow.Array":
        return pyarrow.array(texts, string).take(pyarrow.array(at))

    def number(values: np.ndarray) -> "pyarrow.Array":
        return pyarrow.array(values, pyarrow.int64(), mask=values < 0)

    prompt = attribution.provenance.prompt
    prompt = None if prompt is None else utf8(prompt)
    segments = attribution.segments
    columns = {
        "prompt": pyarrow.repeat(pyarrow.scalar(prompt, string), len(rows)),
        "position": per_row(attribution.positions.astype(np.int64)),
        "token": words([utf8(t.name) for t in attribution.targets], rows),
        "unit": words([*attribution.units], rows),
        "layer": np.array(attribution.layers, np.int64)[places],
        "component": words([s.part for s in segments], places),
        "level": attribution.levels[:, 1:][rows, places],
        "credit": lines["credit"],
        "write": np.where(whole, attribution.writes[rows, places], np.nan),
        "baseline": per_row(attribution.baseline),
        "final": per_row(attribution.final),
        "model_value": per_row(attribution.model_value),
        "fidelity": per_row(attribution.fidelity),
        "module": words([s.module for s in segments], places),
        "row": rows,
        "inside": words([*_kinds(attribution), "others", None], lines["part"]),
        "index": number(lines["index"]),
        "source": number(lines["source"]),
        "router_weight": lines["router_weight"],
        "pruned": attribution.pruned[:, 1:][rows, places],
    }
    return pyarrow.table(columns)


def _kinds(attribution: Attribution) -> tuple[str, ...]:
    """What each listed part is."""
    inside = attribution.components
    return () if inside is None else inside.kinds


_WHOLE = -1
"""A line's part where it is a whole segment: the last of the words for it."""


def _lines(attribution: Attribution) -> dict[str, np.ndarray]:
    """Row, segment, part and credit of every line; parts from the back are no parts."""
    inside, n_segments = attribution.components, len(attribution.segments)
    segment = np.arange(n_segments)
    part = np.full(n_segments, _WHOLE)
    every = (attribution.n_rows, n_segments)
    found = {
        "index": np.full(every, -1),
        "source": np.full(every, -1),
        "router_weight": np.full(every, np.nan),
        "credit": attribution.credits,
    }
    if inside is not None:
        opened = np.isin(segment, inside.segments)
        segment = np.concatenate([inside.segments, segment])
        others = np.where(opened, _WHOLE - 1, _WHOLE)
        part = np.concatenate([np.arange(len(inside.kinds)), others])
        found["credit"] = np.where(opened, inside.others, attribution.credits)
        router = inside.router_weights
        listed = {
            "index": inside.indices,
            "source": inside.sources,
            "router_weight": np.full_like(inside.credits, np.nan)
            if router is None
            else router,
            "credit": inside.credits,
        }
        found = {n: np.concatenate([listed[n], found[n]], axis=1) for n in found}
    order = np.argsort(segment, kind="stable")
    n_rows, n_words = attribution.n_rows, len(_kinds(attribution)) + 2
    return {name: values[:, order].ravel() for name, values in found.items()} | {
        "row": np.repeat(np.arange(n_rows), len(order)),
        "segment": np.tile(segment[order], n_rows),
        "part": np.tile(part[order], n_rows) % n_words,
    }


def utf8(text: str) -> str:
    """The text with "?" for half characters, which UTF-8 does not have."""
    return text.encode("utf-8", "replace").decode()
