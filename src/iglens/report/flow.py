"""Rival flows in plain lines: who gained, who lost, who gave to whom."""

import numpy as np

from ..records.flow import Flow
from .text import between, format_credit, format_level, target_name
from .visible import visible

MATTERS = 0.01
"""Layers with less than this share of all that moves the target are left out."""


def summary(flow: Flow) -> str:
    """Per row and layer that matters, the tokens that gained and lost."""
    warnings = [f"Warning: {warning}" for warning in flow.subject.warnings]
    return "\n".join([*lines(flow), *warnings])


def lines(flow: Flow) -> list[str]:
    """The same without the warnings, line by line."""
    told: list[str] = []
    for row in range(flow.subject.n_rows):
        told += row_lines(flow, row)
    worst = np.abs(flow.vocabulary_sum).max(initial=0.0)
    told.append(
        f"Over the whole vocabulary, gains and losses cancel within {worst:.1g}."
    )
    return told


def row_lines(flow: Flow, row: int) -> list[str]:
    """A heading for the row, then the layers at which much was moved."""
    target = target_name(flow.subject.targets[row])
    level = format_level(float(flow.levels[row, -1]), "probability")
    told = [f"{target} at {flow.subject.positions[row]}: {level}"]
    moved = np.abs(np.nan_to_num(flow.credits[row]))
    for index, segment in enumerate(flow.subject.segments):
        if moved[index] <= MATTERS * moved.sum():
            continue
        gained = _listed(flow, flow.gain_ids[row, index], flow.gains[row, index])
        lost = _listed(flow, flow.loss_ids[row, index], flow.losses[row, index])
        told.append(f"  {between(segment)}: gained {gained}; lost {lost}")
        if flow.integrated[row, index]:
            told += _exchange(flow, row, index, target)
    return told


def _exchange(flow: Flow, row: int, index: int, target: str) -> list[str]:
    """What flowed to the target and from it, along the segment."""
    cell = (row, index)
    came = _listed(flow, flow.sender_ids[cell], flow.sent[cell])
    went = _listed(flow, flow.receiver_ids[cell], flow.received[cell])
    rest = format_credit(float(flow.others[cell]), "probability")
    return [f"    {target} exchanged: from {came}; to {went}; others {rest}"]


def _listed(flow: Flow, ids: np.ndarray, changes: np.ndarray) -> str:
    """Tokens with their changes, as far as they show."""
    shown = [
        f"'{visible(flow.vocabulary[token])}' {format_credit(change, 'probability')}"
        for token, change in zip(ids.tolist(), changes.tolist(), strict=True)
        if token >= 0 and abs(change) >= 5e-4
    ]
    return ", ".join(shown) or "nobody"
