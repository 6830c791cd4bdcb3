"""What is inside segments, in lines: the largest parts, and what heads read."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from ..records import Attribution
from ..records.components import NUMBERED, Components
from .text import exact_credit, target_name
from .visible import visible

PARTS, TOKENS, LAYERS = 10, 12, 3
"""How many parts, tokens, and layers of a token are told at most."""

_LITTLE = 0.01
"""Share of the largest credit below which layers of a token, and rests, are not told.

Of rests only what the certificate does not reach: it may be rounding alone.
"""

_UNNUMBERED = {
    "bias": "biases behind heads or neurons",
    "norm offset": "offsets of norms",
    "besides experts": "shared experts and offsets",
    "carry": "states that blocks rescale",
    "head bias": "from no token (biases of values)",
    "translation": "the lens",
    "error": "what the directions miss",
}
"""What parts are that there is one of per segment, all layers together."""

_MANY = {"source": "(head, token) pairs"}
"""Plurals that are no word with an s."""


def lines(attribution: Attribution) -> list[str]:
    """The largest parts of every row, what they add up to, and the certificate."""
    inside = attribution.components
    assert inside is not None  # nothing else is told here
    told = []
    for row, target in enumerate(attribution.targets):
        name = f"{target_name(target)} at {attribution.positions[row]}"
        if not np.isfinite(attribution.credits[row]).all():
            told.append(f"{name}: the levels are not finite, so nothing is shared out.")
            continue
        total = attribution.credits[row].sum()
        said = exact_credit(total, attribution.units[row])
        told.append(f"{name} by {inside.by} ({said} in all):")
        told += [f"  {line}" for line in _parts(attribution, inside, row)]
        if inside.tokens is not None:
            told += [f"  {line}" for line in _tokens(attribution, inside.tokens, row)]
    return [*told, *_certificate(attribution, inside)]


def _parts(attribution: Attribution, inside: Components, row: int) -> Iterator[str]:
    """The largest parts, and in few lines all others; they add up to the total."""
    unit = attribution.units[row]
    listed = inside.largest(row, _n_told(inside))
    for part in listed:
        name = inside.name(row, part, attribution.segments)
        source = int(inside.sources[row, part])
        if source >= 0:
            name += f" from {_token(attribution, source)}"
        if inside.kinds[part] == "expert" and inside.router_weights is not None:
            name += f" (router {inside.router_weights[row, part]:.2f})"
        yield f"{exact_credit(inside.credits[row, part], unit)} {name}"
    largest = np.abs(inside.credits[row]).max(initial=0.0)
    rounding = min(inside.tolerance, _LITTLE * float(largest))
    for name, credit in _rest(attribution, inside, row, listed):
        if abs(credit) > rounding:
            yield f"{exact_credit(credit, unit)} {name}"


def _n_told(inside: Components) -> int:
    """How many parts are the largest for certain, where some were left out."""
    held = np.zeros(len(inside.n_parts), np.int64)
    for kind, segment in zip(inside.kinds, inside.segments.tolist(), strict=True):
        held[segment] += kind in NUMBERED
    short = held[held < inside.n_parts]
    return min(PARTS, int(short.min(initial=PARTS)))


def _rest(
    attribution: Attribution, inside: Components, row: int, listed: list[int]
) -> Iterator[tuple[str, float]]:
    """Everything that is not listed, by what it is."""
    opened = inside.n_parts > 0
    numbered = [i for i, kind in enumerate(inside.kinds) if kind in NUMBERED]
    count = int(inside.n_parts.sum()) - len(listed)
    if count:
        kinds = dict.fromkeys(inside.kinds[i] for i in numbered)
        many = " and ".join(_MANY.get(kind, f"{kind}s") for kind in kinds)
        credits = [inside.credits[row, i] for i in numbered if i not in set(listed)]
        yield f"{count:,} other {many}", sum(credits) + inside.others[row, opened].sum()
    for kind in dict.fromkeys(k for k in inside.kinds if k not in NUMBERED):
        own = [i for i, other in enumerate(inside.kinds) if other == kind]
        yield _UNNUMBERED.get(kind, kind), inside.credits[row, own].sum()
    parts = np.array([segment.part for segment in attribution.segments])
    for part in dict.fromkeys(parts[~opened].tolist()):
        own = ~opened & (parts == part)
        yield (
            f"{_whole(part, int(own.sum()))}, not opened",
            inside.others[row, own].sum(),
        )


def _whole(part: str, count: int) -> str:
    """What is not opened, and in how many layers."""
    if part == "embedding":
        return "the embedding"
    layers = "1 layer" if count == 1 else f"{count} layers"
    return f"{layers} as a whole" if part == "block" else f"{part} of {layers}"


def _tokens(
    attribution: Attribution,
    tokens: Float[np.ndarray, "rows segments text"],
    row: int,
) -> Iterator[str]:
    """The tokens that most was read from, over all heads, and in which layers."""
    unit, by_token = attribution.units[row], tokens[row].sum(0)
    order = np.argsort(-np.abs(by_token), kind="stable")
    yield "Read by attention, all heads together:"
    for token in order[:TOKENS].tolist():
        if by_token[token] == 0:
            break
        own = tokens[row, :, token]
        least = _LITTLE * np.abs(own).max()
        places = np.argsort(-np.abs(own), kind="stable")[:LAYERS].tolist()
        where = ", ".join(
            f"{attribution.layers[at]} {exact_credit(own[at], unit)}"
            for at in places
            if abs(own[at]) >= least
        )
        total = exact_credit(by_token[token], unit)
        yield f"  {total} from {_token(attribution, token)} (layer {where})"
    rest = by_token[order[TOKENS:]]
    if rest.any():
        more = f"{np.count_nonzero(rest):,} other tokens"
        yield f"  {exact_credit(rest.sum(), unit)} from {more}"


def _token(attribution: Attribution, index: int) -> str:
    """A token of the text, with its place."""
    return f"'{visible(attribution.token_texts[index])}' at {index}"


def _certificate(attribution: Attribution, inside: Components) -> Iterator[str]:
    """How far the shares can be trusted, and what was not opened."""
    missed, apart, closed = (
        float(np.nanmax(np.abs(values), initial=0.0))
        for values in (inside.residual, inside.disagreement, inside.closed)
    )
    word = "Certified" if inside.certified else "NOT certified"
    yield (
        f"{word}: integrals missed {missed:.1g} at most, and two rules differ by "
        f"{apart:.1g} at most on any part (tolerance {inside.tolerance:.1g}); "
        f"{closed:.1g} at most was closed."
    )
    if inside.by == "source":
        yield "A token's state already mixes earlier tokens: read from, not caused by."
    groups: dict[tuple[str, str], int] = {}
    for segment, reason in inside.reasons.items():
        part = attribution.segments[segment].part
        if part != "embedding":
            groups[part, reason] = groups.get((part, reason), 0) + 1
    for (part, reason), count in groups.items():
        yield f"Not opened by {inside.by}: {_whole(part, count)} ({reason})."
