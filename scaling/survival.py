"""What a run withstands: being killed at any moment, and going on for long."""

import os
import random
import signal
import tempfile
import time
from pathlib import Path

import psutil

import iglens
from iglens.corpus import Selection, run

from . import corpora


def killed(times: int, seed: int = 0) -> str:
    """Kill a run so often at random moments, and compare with an undisturbed one.

    The same folder throughout until it is complete, then a new one.
    """
    decoder, rng = corpora.tiny(), random.Random(seed)
    selection = Selection(shard_rows=8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = corpora.write(folder / "corpus.jsonl", 160)
        start = time.perf_counter()
        run(decoder, source, folder / "whole", selection=selection)
        seconds = time.perf_counter() - start
        wanted, n_stores, in_the_midst, done = _bytes(folder / "whole"), 0, 0, 0
        while done < times:
            path = folder / f"killed-{n_stores}"
            n_stores += 1
            while done < times and not (path / "summary.json").exists():
                before = _shards(path)
                _killed(decoder, source, path, selection, rng.uniform(0, seconds / 3))
                done += 1
                in_the_midst += _shards(path) > before
            run(decoder, source, path, selection=selection)
            if _bytes(path) != wanted:
                raise AssertionError(f"{path} differs from an undisturbed run")
    return (
        f"Killed {done} times (SIGKILL) at random moments, in {n_stores} stores of "
        f"{len(wanted) - 3} shards; {in_the_midst} times the killed run "
        "had written shards before. Every finished store has the same files as that "
        "of an undisturbed run, byte for byte."
    )


def _killed(
    decoder: iglens.Decoder,
    source: Path,
    path: Path,
    selection: Selection,
    after: float,
) -> None:
    """One run in a child, killed after so many seconds."""
    child = os.fork()
    if child == 0:
        try:
            run(decoder, source, path, selection=selection)
        finally:
            os._exit(0)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _shards(path: Path) -> int:
    """Shards that are there."""
    return len([*path.glob("shards/*.parquet")])


def _bytes(path: Path) -> dict[str, bytes]:
    """Every file, by name."""
    files = [each for each in path.rglob("*") if each.is_file()]
    return {str(each.relative_to(path)): each.read_bytes() for each in files}


def memory(n_tokens: int, parts: int = 10) -> str:
    """Resident memory over a run of so many explained tokens, part by part."""
    decoder, process = corpora.tiny(), psutil.Process()
    n_rows = n_tokens // 40
    told: list[tuple[int, int]] = []

    def look(stage: str, done: int, total: int | None) -> None:
        told.append((done, process.memory_info().rss))

    with tempfile.TemporaryDirectory() as name:
        source = corpora.write(Path(name) / "corpus.jsonl", n_rows)
        run(decoder, source, Path(name) / "warm", selection=Selection(limit=256))
        small = Selection(shard_rows=64)
        outcome = run(
            decoder, source, Path(name) / "run", selection=small, progress=look
        )
        n_bytes = sum(f.stat().st_size for f in (Path(name) / "run").rglob("*.parquet"))
    most = [
        max(rss for done, rss in told if part < parts * done / n_rows <= part + 1)
        for part in range(parts)
    ]
    ends = (f"{(part + 1) / parts:.0%}" for part in range(parts))
    cells = (f"{rss / 2**20:.0f}" for rss in most)
    lines = [
        f"| rows done | {' | '.join(ends)} |",
        "|---" * (parts + 1) + "|",
        f"| most resident memory, MiB | {' | '.join(cells)} |",
        "",
    ]
    lines += [
        f"{outcome.n_tokens:,} explained tokens in {outcome.n_rows:,} rows, "
        f"{outcome.n_tokens / outcome.seconds:.0f} tokens/s with a model of two small "
        f"layers; {n_bytes / outcome.n_tokens:.0f} bytes per token in the store."
    ]
    return "\n".join(lines)
