"""Child processes whose output never reaches ours, and that never outlive us."""

import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

Progress = Callable[[str, int, int | None], None]
"""Is told `(stage, done, total)` of a slow job; `total` is None where nobody knows."""


def silent(stage: str, done: int, total: int | None) -> None:
    """The `Progress` that tells nobody."""


def run(
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    tick: Callable[[], None] = lambda: None,
) -> int:
    """Run a child to its end and return its exit status.

    Both of its streams go to `log`, so that standard output stays data. Whatever
    leaves this function early, Ctrl-C included, takes the child with it.

    Args:
        command: Program and arguments.
        log: File for what the child says.
        env: Its environment; ours by default.
        tick: Called about ten times a second.
    """
    with log.open("wb") as sink:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=env,
        )
        try:
            while True:
                try:
                    return child.wait(timeout=0.1)
                except subprocess.TimeoutExpired:
                    tick()
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()


def last_line(log: Path) -> str:
    """The last thing a child said; for a Python error, its name and message."""
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
