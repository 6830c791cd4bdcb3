"""Below the layer: one token, all layers, against the layer map of the same token."""

from collections.abc import Iterator
from typing import Any

import iglens

from ..pairs import Way, in_turns
from ..results import Measurement
from ..size import Size
from ..subject import Subject

PROMPT, TARGET = "The capital of France is", " Paris"


def inside(subject: Subject, size: Size) -> Iterator[Measurement]:
    """Tracing and attribution at every level, against the same by layer."""
    decoder = subject.decoder
    ids = decoder.encode(PROMPT)
    target = decoder.target(TARGET, ids)

    def opened(by: Any) -> Way:
        def run() -> iglens.Attribution:
            trace = decoder.trace(ids, [len(ids)], by=by)
            return iglens.attribute(trace, target, by=by, diagnostics=False)

        return run

    for by in size.levels:
        ways = {f"by {by}": opened(by), "by layer": opened("layer")}
        turns = in_turns([ways] * size.pairs)
        yield Measurement.of(
            "inside", turns, f"by {by}", "by layer", model=subject.name, tokens=1
        )
