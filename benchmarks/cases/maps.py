"""The per-token map: readout alone, whole, and how exact it is."""

from collections.abc import Iterator
from functools import partial

import torch

from iglens.readout.pruning import TOLERANCE

from ..oracle import largest_error, probabilities
from ..pairs import Way, in_turns
from ..product import slices
from ..results import Measurement
from ..size import Size
from ..subject import CHOSEN, TORCH, Subject, map_of, readout_of

PLAIN, SPARED = "iglens", "iglens, pruned"
"""Names of ours: every point read to its end, and points finished early."""

WAYS = {PLAIN: 0.0, SPARED: TOLERANCE}
"""With which tolerance on a probability."""

FLOORS = {"map": TORCH, "floor": CHOSEN}
"""What a readout is compared with, by case."""


def readouts(subject: Subject, n_tokens: int, size: Size) -> Iterator[Measurement]:
    """The readout of a text against the bare product, stretch by stretch."""
    parts = slices(n_tokens, subject.at_once(size.turn), size.pairs)
    rows = sorted({row for part in parts for row in range(n_tokens)[part]})
    whole = subject.decoder.trace(
        subject.ids[: n_tokens + 1], [row + 1 for row in rows]
    )

    def ways() -> Iterator[dict[str, Way]]:
        for part in parts:
            first = rows.index(part.start)
            trace = whole.at(slice(first, first + part.stop - part.start))
            own = {n: readout_of(trace, t) for n, t in WAYS.items()}
            yield {**own, **subject.products(trace)}

    turns = in_turns(ways())
    length = parts[0].stop - parts[0].start
    note = "" if length == n_tokens else f"stretches of {length} tokens of the text"
    for case, floor in FLOORS.items():
        for name in WAYS:
            yield Measurement.of(
                case,
                turns,
                name,
                floor,
                model=subject.name,
                tokens=n_tokens,
                note=note,
            )


def whole(subject: Subject, n_tokens: int, size: Size) -> Iterator[Measurement]:
    """Forward pass, check, readout and record together, against the bare product."""
    trace = subject.trace(n_tokens)

    def run(tolerance: float) -> None:
        map_of(subject.trace(n_tokens), tolerance)

    ways: dict[str, Way] = {name: partial(run, t) for name, t in WAYS.items()}
    ways["product"] = subject.product(trace)
    turns = in_turns([ways] * size.pairs)
    for name in WAYS:
        yield Measurement.of(
            "whole", turns, name, "product", model=subject.name, tokens=n_tokens
        )


def accuracy(subject: Subject, n_tokens: int) -> Iterator[Measurement]:
    """The largest difference from the model's own readout in float64."""
    trace = subject.trace(n_tokens)
    targets = trace.token_ids[trace.positions]
    exact = probabilities(subject.model, trace.states, targets)
    for name, tolerance in WAYS.items():
        levels = torch.from_numpy(map_of(trace, tolerance).levels).T
        yield Measurement(
            "accuracy",
            name,
            model=subject.name,
            tokens=n_tokens,
            value=largest_error(levels, exact),
            unit="probability",
        )
