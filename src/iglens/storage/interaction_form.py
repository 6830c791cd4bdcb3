"""What parts of blocks do only together, as JSON."""

from typing import Any

from ..records.interaction import Interaction
from .plain import nulled
from .subject_form import subject_to_json

INTERACTION_SCHEMA = "iglens.interaction/1"


def interaction_to_json(found: Interaction) -> dict[str, Any]:
    """The record as JSON values; NaN and infinity become null."""
    return subject_to_json(found.subject, INTERACTION_SCHEMA) | {
        "unit": found.unit,
        "alone": nulled(found.alone),
        "credits": nulled(found.credits),
        "interaction_layers": list(found.layers),
        "interaction": nulled(found.interaction),
    }
