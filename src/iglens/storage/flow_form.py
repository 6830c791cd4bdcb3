"""Rival flows as JSON."""

from typing import Any

import numpy as np

from ..records.flow import Flow
from .plain import nulled
from .subject_form import subject_to_json

FLOW_SCHEMA = "iglens.flow/1"

_LISTS = {
    "gains": "gain_ids",
    "losses": "loss_ids",
    "sent": "sender_ids",
    "received": "receiver_ids",
}

_NUMBERS = (
    "levels",
    "credits",
    "mass",
    "vocabulary_sum",
    "others",
    "residual",
    "disagreement",
    "drift",
    "completeness",
)


def flow_to_json(flow: Flow) -> dict[str, Any]:
    """The flows as JSON values; NaN and infinity become null.

    `gains`, `losses`, `sent` and `received` are lists per row and segment of
    `{id, text, change}`; `others`, `residual`, `disagreement`, `drift` and
    `completeness` are null where no flow was integrated.
    """
    lists = {
        changes: _listed(flow, getattr(flow, ids), getattr(flow, changes))
        for changes, ids in _LISTS.items()
    }
    return (
        subject_to_json(flow.subject, FLOW_SCHEMA)
        | {"unit": flow.unit, "rule": flow.rule, "tolerance": flow.tolerance}
        | lists
        | {name: nulled(getattr(flow, name)) for name in _NUMBERS}
        | {"nodes": flow.nodes.tolist()}
    )


def _listed(
    flow: Flow, ids: np.ndarray, changes: np.ndarray
) -> list[list[list[dict[str, Any]]]]:
    """The tokens of every cell, without the unused places."""
    return [
        [
            [
                {"id": token, "text": flow.vocabulary[token], "change": change}
                for token, change in zip(*cell, strict=True)
                if token >= 0
            ]
            for cell in zip(*row, strict=True)
        ]
        for row in zip(ids.tolist(), changes.tolist(), strict=True)
    ]
