"""What a replay found, as JSON."""

from dataclasses import asdict
from typing import Any

from ..records.replay import Replay
from .plain import nulled, plain

SCHEMA = "iglens.replay/1"
"""Name and version of the form. Fields may be added within a version, never renamed."""


def replay_to_json(replay: Replay) -> dict[str, Any]:
    """The verdict, what moved, and what is not what it was."""
    then, now = replay.then.provenance, replay.now.provenance
    parts = replay.parts_moved
    written = plain(
        {
            "schema": SCHEMA,
            "verdict": replay.verdict,
            "unit": replay.difference.unit,
            "positions": replay.then.positions.tolist(),
            "target": [asdict(target) for target in replay.then.targets],
            "layers": replay.then.point_layers,
            "moved": nulled(replay.moved),
            "parts_moved": None if parts is None else nulled(parts),
            "noise_floor": nulled(replay.difference.noise_floor),
            "largest": None if replay.largest is None else asdict(replay.largest),
            "facts": [asdict(fact) for fact in replay.facts],
            "then": {"created": then.created, "model": asdict(then.model)},
            "now": {"created": now.created, "model": asdict(now.model)},
            "warnings": replay.now.warnings,
        }
    )
    return dict(written)
