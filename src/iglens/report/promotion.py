"""Two splits of log-odds in plain lines."""

import numpy as np

from ..records.promotion import Promotion
from .text import between, format_level, target_name

MATTERS = 0.02
"""Layers with less than this share of all that moves the target are left out."""


def summary(found: Promotion) -> str:
    """Per row the whole change, then the layers that matter, and the conventions."""
    warnings = [f"Warning: {warning}" for warning in found.subject.warnings]
    return "\n".join([*lines(found), *warnings])


def lines(found: Promotion) -> list[str]:
    """The same without the warnings, line by line."""
    told: list[str] = []
    for row in range(found.subject.n_rows):
        told += row_lines(found, row)
    told.append(
        f"Log-odds in nats; centred by the {found.centring}; scale: {found.scale}."
    )
    return told


def row_lines(found: Promotion, row: int) -> list[str]:
    """A heading for the row, then one line per layer that moves it much."""
    target = target_name(found.subject.targets[row])
    first, last = (format_level(float(found.levels[row, i]), "nats") for i in (0, -1))
    told = [
        f"{target} at {found.subject.positions[row]}: {first} → {last}; "
        + _splits(found, row, slice(None))
    ]
    moved = np.abs(np.nan_to_num(found.credits[row]))
    for index, segment in enumerate(found.subject.segments):
        if moved[index] > MATTERS * moved.sum():
            words = _splits(found, row, slice(index, index + 1))
            credit = found.credits[row, index]
            told.append(f"  {between(segment)}: {credit:+.2f}; {words}")
    return told


def _splits(found: Promotion, row: int, part: slice) -> str:
    """Both splits of some segments together."""
    own, rivals, scale, direction = (
        getattr(found, name)[row, part].sum()
        for name in ("promotion", "competition", "temperature", "preference")
    )
    return (
        f"target promoted {own:+.2f}, rivals demoted {rivals:+.2f}; "
        f"temperature {scale:+.2f}, preference {direction:+.2f}"
    )
