"""The hash of a model's weight files, remembered per file."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from .loading.cache import cache_root

_PATTERNS = ("*.safetensors", "pytorch_model*.bin", "*.gguf")


def weights_sha256(path: Path) -> str | None:
    """SHA-256 of the weights in a folder, or of one weight file.

    For several files, the hash of their names and hashes, in order of name. None if
    there are none.
    """
    if path.is_file():
        return _file_sha256(path)
    for pattern in _PATTERNS:
        if files := sorted(path.glob(pattern)):
            break
    else:
        return None
    if len(files) == 1:
        return _file_sha256(files[0])
    listing = "".join(f"{file.name} {_file_sha256(file)}\n" for file in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def joined_sha256(*digests: str) -> str:
    """One hash of several, in their order."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _file_sha256(path: Path) -> str:
    """Hash of a file, from the cache if neither size nor time has changed."""
    real = path.resolve()
    stat = real.stat()
    stamp = [str(real), stat.st_size, stat.st_mtime_ns]
    key = hashlib.sha256(str(real).encode()).hexdigest()[:32]
    note = cache_root() / "hashes" / f"{key}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(note.read_text())
        if known["stamp"] == stamp:
            return str(known["sha256"])
    with real.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with suppress(OSError):  # a cache that cannot be written is only slower
        note.parent.mkdir(parents=True, exist_ok=True)
        partial = note.with_suffix(".partial")
        partial.write_text(json.dumps({"stamp": stamp, "sha256": digest}))
        partial.replace(note)
    return digest
