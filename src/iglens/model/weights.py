"""The hash of a model's weight files, remembered per file."""

import hashlib
from pathlib import Path

from .loading.notes import note, recalled

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
    known = recalled("hashes", str(real), stamp)
    if isinstance(known, str):
        return known
    with real.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    note("hashes", str(real), stamp, digest)
    return digest
