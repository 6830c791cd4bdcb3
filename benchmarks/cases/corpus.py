"""A run over a corpus, against the same forwards and readouts alone.

And texts that begin alike, against the same texts each run whole.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from iglens import corpus
from iglens.attribution import attribute_many
from iglens.corpus.budget import Budget
from iglens.explaining.plan import planned

from ..pairs import Way, in_turns
from ..results import Measurement
from ..size import Size
from ..subject import Subject
from ..text import paragraphs

LENGTH = 64
"""Tokens of a text."""

ALIKE, OWN, BATCH = 40, 20, 16
"""Tokens that texts begin with, tokens of their own, and how many texts."""


def throughput(subject: Subject, size: Size) -> Iterator[Measurement]:
    """What a run adds: reading rows, planning, records, files that survive."""
    decoder = subject.decoder
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "texts.jsonl"
        texts = _texts(subject, size.texts)
        source.write_text("".join(f"{json.dumps({'prompt': t})}\n" for t in texts))
        plans = [
            planned(decoder, text, positions="all", max_new_tokens=0) for text in texts
        ]
        batches = [
            [plans[at] for at in batch] for batch in Budget.of(decoder).batches(plans)
        ]

        def alone() -> None:
            for batch in batches:
                traces = decoder.trace_many(
                    [plan.ids for plan in batch], [plan.positions for plan in batch]
                )
                attribute_many(traces, [None] * len(traces), diagnostics=False)

        def run(name: str) -> Way:
            return lambda: corpus.run(
                decoder,
                source,
                Path(folder) / name,
                positions="all",
                max_new_tokens=0,
            )

        rounds = (
            {"alone": alone, "run": run(f"run-{at}")} for at in range(size.launches + 1)
        )
        next(rounds)["run"]()  # what is loaded on first use is in nobody's time
        turns = in_turns(rounds, warm=False)
    note = f"{len(texts)} texts of {LENGTH} tokens at most"
    yield Measurement.of(
        "corpus", turns, "alone", "run", model=subject.name, tokens=LENGTH, note=note
    )


def beginnings(subject: Subject, size: Size) -> Iterator[Measurement]:
    """Tracing and attribution of the next token of texts that begin alike."""
    first, rest = subject.ids[:ALIKE], subject.ids[ALIKE:]
    texts = [first + (rest[at % len(rest) :] * OWN)[:OWN] for at in range(BATCH)]

    def explained(batch: list[list[int]]) -> Way:
        def run() -> None:
            traces = subject.decoder.trace_many(batch, [[len(ids)] for ids in batch])
            targets = [[subject.decoder.target(ids[-1])] for ids in batch]
            attribute_many(traces, targets, diagnostics=False)

        return run

    unlike = [[at, *text[1:]] for at, text in enumerate(texts)]
    ways = {"texts alike": explained(texts), "texts unlike": explained(unlike)}
    turns = in_turns([ways] * size.pairs)
    note = f"{BATCH} texts, {ALIKE} tokens alike and {OWN} of their own"
    yield Measurement.of(
        "corpus",
        turns,
        "texts alike",
        "texts unlike",
        model=subject.name,
        tokens=1,
        note=note,
    )


def _texts(subject: Subject, count: int) -> list[str]:
    """Beginnings of paragraphs."""
    decoder = subject.decoder
    found: list[str] = []
    for part in paragraphs():
        ids = decoder.encode(part, special_tokens=False)[:LENGTH]
        found.append("".join(decoder.token_text(token) for token in ids))
    return (found * (1 + count // len(found)))[:count]
