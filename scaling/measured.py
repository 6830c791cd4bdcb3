"""The cost model against this machine."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import iglens
from benchmarks.text import text_ids
from iglens.attribution import attribute_many

from .architecture import Architecture


@dataclass(frozen=True)
class Size:
    """How much is done.

    Attributes:
        n_tokens: Tokens of the text that is timed.
        times: How often; the median counts.
    """

    n_tokens: int
    times: int


def models(names: tuple[str, ...], size: Size) -> str:
    """Seconds of forward and readout, beside what the model of costs says."""
    lines = [
        "| model | forward, GFLOP | ms | GFLOP/s | readout, GFLOP | ms | GFLOP/s | "
        "readout's share, by operations | measured |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        decoder = iglens.Decoder.from_pretrained(name, accept_licence=True)
        lines.append(_line(name, decoder, size))
    return "\n".join(lines)


def _line(name: str, decoder: iglens.Decoder, size: Size) -> str:
    """One model, per token."""
    shape = Architecture.of(name, decoder.model.config)
    ids = text_ids(decoder, size.n_tokens + 1)
    positions = list(range(1, size.n_tokens + 1))
    traced = decoder.trace(ids, positions)

    forward = _seconds(lambda: decoder.trace(ids, positions), size.times)
    readout = _seconds(
        lambda: attribute_many([traced], [None], diagnostics=False, tolerance=0.0),
        size.times,
    )
    operations = shape.forward(size.n_tokens), shape.readout
    seconds = forward / size.n_tokens, readout / size.n_tokens
    cells = [name]
    for n, s in zip(operations, seconds, strict=True):
        cells += [f"{n / 1e9:.2f}", f"{1e3 * s:.1f}", f"{n / s / 1e9:.0f}"]
    cells += [
        f"{operations[1] / sum(operations):.0%}",
        f"{seconds[1] / sum(seconds):.0%}",
    ]
    return f"| {' | '.join(cells)} |"


def _seconds(do: Callable[[], object], times: int) -> float:
    """Median time of doing something, once done before."""
    do()
    found = []
    for _ in range(times):
        start = time.perf_counter()
        do()
        found.append(time.perf_counter() - start)
    return statistics.median(found)
