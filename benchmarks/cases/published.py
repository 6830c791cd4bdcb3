"""The published procedure against ours and the bare product, on the same states."""

from collections.abc import Iterator

from ..pairs import Way, in_turns
from ..procedure import published_procedure
from ..results import Measurement
from ..size import Size
from ..subject import Subject, readout_of
from .maps import WAYS

MOST = 7e8
"""Bytes of logits that a turn of it holds once; it holds them several times."""


def published(subject: Subject, n_tokens: int, size: Size) -> Iterator[Measurement]:
    """By number of steps; timed on a part of the map, and counted for all of it."""
    trace = subject.trace(n_tokens)
    states, targets = trace.states, trace.token_ids[trace.positions]
    n_segments = len(states) - 1
    for n_steps in size.steps:
        per_row = (n_steps + 1) * subject.decoder.readout.vocab_size * 4
        fits = max(1, int(MOST // per_row))
        n_rows, timed = min(n_tokens, fits), max(1, min(n_segments, fits // n_tokens))
        counted = n_tokens * n_segments / (n_rows * timed)
        name = f"published procedure, {n_steps} step{'s' if n_steps > 1 else ''}"

        def run(steps: int = n_steps, rows: int = n_rows, upto: int = timed) -> None:
            published_procedure(
                subject.model,
                states[:upto, :rows],
                states[1 : upto + 1, :rows],
                targets[:rows],
                steps,
            )

        ways: dict[str, Way] = {name: run, "product": subject.product(trace)}
        ways |= {own: readout_of(trace, below) for own, below in WAYS.items()}
        turns = in_turns([ways] * max(1, size.pairs - 2))
        note = f"timed on {timed} of {n_segments} segments and {n_rows} tokens"
        for against in ("product", *WAYS):
            yield Measurement.of(
                "published",
                turns,
                name,
                against,
                counted=counted,
                model=subject.name,
                tokens=n_tokens,
                note=note,
            )
