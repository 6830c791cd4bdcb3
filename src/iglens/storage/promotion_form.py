"""Promotion, competition, temperature and preference as JSON."""

from typing import Any

from ..records.promotion import Promotion
from .plain import nulled
from .subject_form import subject_to_json

PROMOTION_SCHEMA = "iglens.promotion/1"

_NUMBERS = (
    "levels",
    "credits",
    "own",
    "rivals",
    "promotion",
    "competition",
    "mean",
    "spread",
    "temperature",
    "preference",
    "interaction",
)


def promotion_to_json(found: Promotion) -> dict[str, Any]:
    """Both splits as JSON values; NaN and infinity become null."""
    return (
        subject_to_json(found.subject, PROMOTION_SCHEMA)
        | {"unit": found.unit, "centring": found.centring, "scale": found.scale}
        | {name: nulled(getattr(found, name)) for name in _NUMBERS}
        | {"completeness": {k: nulled(v) for k, v in found.completeness.items()}}
    )
