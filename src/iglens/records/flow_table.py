"""Rival flows in long form, for other people's tools."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .flow import Flow
from .table import utf8

if TYPE_CHECKING:
    import pyarrow

_KINDS = {
    "gain": ("gain_ids", "gains"),
    "loss": ("loss_ids", "losses"),
    "flow from": ("sender_ids", "sent"),
    "flow to": ("receiver_ids", "received"),
}


def tidy_table(flow: Flow) -> "pyarrow.Table":
    """One line per row, segment, kind and listed token.

    The columns:

        position    index of the predicted token
        target      text of the target
        layer       layer the segment ends at
        component   part of the layer, such as "block"
        credit      what the segment added to the target's probability
        kind        "gain", "loss", "flow from" (a token to the target), "flow to" (a
                    token from the target), or "flow of others", which names no token
        token_id    the token; null for the others
        token       its text
        change      its own change, or what flowed: positive to the target
        row         number of the row
    """
    import pyarrow

    string, subject = pyarrow.string(), flow.subject
    lines = _lines(flow)
    rows, segments = (np.array(x, np.int64) for x in (lines.rows, lines.segments))
    names = [utf8(target.name) for target in subject.targets]
    texts = [None if i is None else utf8(flow.vocabulary[i]) for i in lines.ids]
    return pyarrow.table(
        {
            "position": subject.positions.astype(np.int64)[rows],
            "target": pyarrow.array([names[row] for row in lines.rows], string),
            "layer": np.array(subject.layers, np.int64)[segments],
            "component": pyarrow.array(
                [subject.segments[segment].part for segment in lines.segments], string
            ),
            "credit": flow.credits[rows, segments],
            "kind": pyarrow.array(lines.kinds, string),
            "token_id": pyarrow.array(lines.ids, pyarrow.int64()),
            "token": pyarrow.array(texts, string),
            "change": np.array(lines.changes, np.float64),
            "row": rows,
        }
    )


@dataclass
class _Lines:
    """Columns of the table that differ from token to token."""

    rows: list[int]
    segments: list[int]
    kinds: list[str]
    ids: list[int | None]
    changes: list[float]

    def add(
        self, cell: tuple[int, int], kind: str, token: int | None, change: float
    ) -> None:
        """One more line."""
        self.rows.append(cell[0])
        self.segments.append(cell[1])
        self.kinds.append(kind)
        self.ids.append(token)
        self.changes.append(change)


def _lines(flow: Flow) -> _Lines:
    """Every listed token of every cell, and the others of integrated ones."""
    lines = _Lines([], [], [], [], [])
    for cell in np.ndindex(flow.others.shape):
        for kind, (ids, changes) in _KINDS.items():
            listed = getattr(flow, ids)[cell].tolist()
            amounts = getattr(flow, changes)[cell].tolist()
            for token, change in zip(listed, amounts, strict=True):
                if token >= 0:
                    lines.add(cell, kind, token, change)
        if flow.integrated[cell]:
            lines.add(cell, "flow of others", None, float(flow.others[cell]))
    return lines
