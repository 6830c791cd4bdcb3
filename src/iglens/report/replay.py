"""What running a result again gave, in plain sentences."""

from collections.abc import Iterator

import numpy as np

from ..records.replay import Fact, Replay
from .text import target_name
from .visible import visible

_VERDICTS = {
    "identical": "Identical, bit for bit",
    "within noise": "Within the noise floor",
    "changed": "Changed",
}


def summary(replay: Replay) -> str:
    """The verdict, what moved most, and what is not what it was."""
    lines = [_verdict(replay), *_parts(replay)]
    lines += [_fact(fact) for fact in replay.changed_facts]
    if not replay.changed_facts:
        lines.append(_same(replay))
    return "\n".join(lines)


def _same(replay: Replay) -> str:
    """What to say where no fact has changed."""
    if replay.now.provenance.model.weights_sha256 is not None:
        return "Same model, weights, versions and settings."
    return (
        "Same model, versions and settings; whether the weights are the same is not "
        "known."
    )


def _verdict(replay: Replay) -> str:
    """The first line."""
    then = replay.then
    rows = "1 row" if then.n_rows == 1 else f"{then.n_rows} rows"
    size = f"{rows} of {then.levels.shape[1]} levels"
    start = (
        f"{_VERDICTS[replay.verdict]}: {size}, saved {visible(then.provenance.created)}"
    )
    largest = replay.largest
    if replay.verdict == "identical" or largest is None:
        return f"{start}."
    floor = replay.difference.noise_floor[largest.row]
    where = "the baseline" if largest.point == 0 else f"layer {largest.layer}"
    name = target_name(then.targets[largest.row])
    return (
        f"{start}. The level of {name} at {where} (position "
        f"{then.positions[largest.row]}) moved most, by {largest.change:+.2g} "
        f"{visible(then.units[largest.row])}; rounding may move it by {floor:.1g}."
    )


def _parts(replay: Replay) -> Iterator[str]:
    """How far what is inside the segments moved, if that was saved."""
    moved, inside = replay.parts_moved, replay.then.components
    if inside is None or moved is None:
        return
    count = f"{moved.shape[1]:,} saved parts (by {inside.by})"
    if replay.verdict == "identical":
        yield f"So are its {count}."
        return
    lost = int(np.isnan(moved).any(0).sum())
    most = float(np.nanmax(moved, initial=0.0))
    yield f"Of {count}, {lost:,} are lost; the others moved by {most:.1g} at most."


def _fact(fact: Fact) -> str:
    """Something that is not what it was."""
    values = (v if v is None else visible(v) for v in (fact.then, fact.now))
    then, now = ("unknown" if value is None else value for value in values)
    return f"  {fact.name}: {then} → {now}"
