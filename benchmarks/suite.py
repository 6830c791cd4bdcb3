"""The whole suite: every case on every model, and then the neighbours."""

import datetime
import hashlib
import sys
from collections.abc import Collection, Iterator
from typing import Any

import torch

from iglens.model.loading.embedded import cached_path

from .cases import corpus, inside, maps, memory, published, spread, start
from .machine import machine, versions
from .neighbours.environments import NEIGHBOURS, NotThereError, ask
from .neighbours.task import Task
from .results import Measurement, Results
from .size import Size
from .subject import Subject


def measure(size: Size, only: Collection[str] = ()) -> Results:
    """Run it.

    Args:
        size: Which form.
        only: Cases to run; empty for all of the form.
    """
    only = only or size.cases
    began = datetime.datetime.now(datetime.UTC)
    about: dict[str, Any] = {
        "form": size.name,
        "date": began.date().isoformat(),
        "seed": size.seed,
        "machine": machine(),
        "versions": versions(),
        "text": {},
    }
    found: list[Measurement] = []
    others: dict[str, dict[str, Any]] = {}
    for name in size.models:
        torch.manual_seed(size.seed)
        subject = Subject.load(name, max(size.tokens), size.blockings)
        about["text"][name] = hashlib.sha256(str(subject.ids).encode()).hexdigest()
        for each in _ours(subject, size, only):
            told = f"{each.case}: {each.what} / {each.against} {each.model}"
            _say(f"{told} {each.tokens}: {each.median:.3g}")
            found.append(each)
        if "neighbours" in only:
            found += _neighbours(subject, size, others)
        del subject
    seconds = (datetime.datetime.now(datetime.UTC) - began).total_seconds()
    about["seconds"] = round(seconds)
    return Results(about, tuple(found), others)


def _ours(subject: Subject, size: Size, only: Collection[str]) -> Iterator[Measurement]:
    """Every case that needs no neighbour."""
    fewest, first = min(size.tokens), subject.name == size.models[0]
    if "map" in only:
        for n_tokens in size.tokens:
            yield from maps.readouts(subject, n_tokens, size)
    if "whole" in only:
        yield from maps.whole(subject, fewest, size)
    if "accuracy" in only:
        yield from maps.accuracy(subject, fewest)
    if "published" in only:
        yield from published.published(subject, fewest, size)
    if "inside" in only:
        yield from inside.inside(subject, size)
    if "spread" in only and first:
        yield from spread.spread(size)
    if "corpus" in only and first:
        yield from corpus.throughput(subject, size)
        yield from corpus.beginnings(subject, size)
    if "memory" in only:
        yield from memory.peak(subject.name, torch.get_num_threads())
    if "start" in only and first:
        yield from start.starts(subject.name, size)


def _neighbours(
    subject: Subject, size: Size, others: dict[str, dict[str, Any]]
) -> Iterator[Measurement]:
    """All of them on one model; what cannot be measured leaves its reason."""
    folder = cached_path(subject.name)
    task = Task(
        subject.name,
        str(folder),
        subject.ids[: max(size.neighbours) + 1],
        list(size.neighbours),
        size.turn,
        max(1, size.pairs - 2),
        torch.get_num_threads(),
    )
    for each in NEIGHBOURS:
        known = others.setdefault(
            each.name, {"note": each.note, "versions": {}, "reasons": {}}
        )
        try:
            answer = ask(each, task)
        except NotThereError as error:
            known["reasons"][subject.name] = str(error)
            _say(f"{each.name} on {subject.name}: {error}")
            continue
        known["versions"] = answer["versions"]
        for found in answer["measurements"]:
            one = Measurement(**{**found, "what": each.name})
            _say(f"{one.case}: {one.what} {one.model} {one.tokens}: {_told(one)}")
            yield one


def _told(found: Measurement) -> str:
    """Its number, or why there is none."""
    has = found.ratios or found.value is not None
    return f"{found.median:.3g}" if has else found.note


def _say(text: str) -> None:
    """How far it is."""
    print(text, file=sys.stderr, flush=True)
