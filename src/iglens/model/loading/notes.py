"""Small facts remembered in the cache folder, each believed only as it was written.

CACHE/KIND/HASH.json holds what a fact depends on, the fact, and a hash of both. A note
that is cut off, edited, of another state of things, or that cannot be written is as
good as none: whoever asks finds out anew.
"""

import hashlib
import json
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...errors import ModelLoadError
from .cache import cache_root

_FAULTS = (OSError, ValueError, KeyError, TypeError, RecursionError, ModelLoadError)
"""What a damaged note, a folder without rights, or a user without a home raises."""


def recalled(kind: str, name: str, stamp: Any) -> Any | None:
    """The fact noted under a name, if it was noted of this very state of things.

    Args:
        kind: Folder of such notes.
        name: What the fact is about.
        stamp: All that the fact depends on, as JSON has it.
    """
    with suppress(*_FAULTS):
        found = json.loads(_place(kind, name).read_bytes())
        if found["sha256"] == _digest(stamp, found["fact"]):
            return found["fact"]
    return None


def note(kind: str, name: str, stamp: Any, fact: Any) -> None:
    """Note a fact, in place of what was noted under that name; or do nothing."""
    with suppress(*_FAULTS):
        place = _place(kind, name)
        content = {"stamp": stamp, "fact": fact, "sha256": _digest(stamp, fact)}
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_suffix(f".{secrets.token_hex(4)}.partial")
        try:
            partial.write_text(json.dumps(content))
            partial.replace(place)
        finally:
            partial.unlink(missing_ok=True)


def _place(kind: str, name: str) -> Path:
    """Where a note is."""
    return (
        cache_root() / kind / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"
    )


def _digest(stamp: Any, fact: Any) -> str:
    """Hash of a note."""
    text = json.dumps([stamp, fact], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
