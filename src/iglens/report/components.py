"""What is inside segments, in lines: the largest parts, and what heads read."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from ..records import Attribution
from ..records.components import Components
from .text import format_credit, target_name
from .visible import visible

PARTS, TOKENS, LAYERS = 10, 12, 3
"""How many parts, tokens, and layers of a token are told."""


def lines(attribution: Attribution) -> list[str]:
    """The largest parts of every row, what they add up to, and the certificate."""
    inside = attribution.components
    assert inside is not None  # nothing else is told here
    told = []
    for row, target in enumerate(attribution.targets):
        total = attribution.final[row] - attribution.baseline[row]
        said = format_credit(float(total), attribution.units[row])
        told.append(f"Inside the layers, {target_name(target)} ({said} in all):")
        told += [f"  {line}" for line in _parts(attribution, inside, row)]
        if inside.tokens is not None:
            told += [f"  {line}" for line in _tokens(attribution, inside.tokens, row)]
    return [*told, *_certificate(inside)]


def _parts(attribution: Attribution, inside: Components, row: int) -> Iterator[str]:
    """The largest parts, and everything else."""
    unit, rest = attribution.units[row], attribution.credits[row].sum()
    for part in inside.largest(row, PARTS):
        credit = float(inside.credits[row, part])
        rest -= credit
        name = inside.name(part, attribution.segments)
        source = int(inside.sources[part])
        if source >= 0:
            name += f" from {_token(attribution, source)}"
        yield f"{format_credit(credit, unit)} {name}"
    yield f"{format_credit(float(rest), unit)} everything else"


def _tokens(
    attribution: Attribution,
    tokens: Float[np.ndarray, "rows segments text"],
    row: int,
) -> Iterator[str]:
    """The tokens that most was read from, over all heads, and in which layers."""
    unit, by_token = attribution.units[row], tokens[row].sum(0)
    yield "Read by attention, all heads together:"
    for token in np.argsort(-np.abs(by_token), kind="stable")[:TOKENS].tolist():
        if by_token[token] == 0:
            break
        own = tokens[row, :, token]
        places = np.argsort(-np.abs(own), kind="stable")[:LAYERS].tolist()
        where = ", ".join(
            f"layer {attribution.layers[at]} {format_credit(float(own[at]), unit)}"
            for at in places
            if own[at]
        )
        total = format_credit(float(by_token[token]), unit)
        yield f"  {total} from {_token(attribution, token)} ({where})"


def _token(attribution: Attribution, index: int) -> str:
    """A token of the text, with its place."""
    return f"'{visible(attribution.token_texts[index])}' at {index}"


def _certificate(inside: Components) -> Iterator[str]:
    """How far the shares can be trusted, and what was not opened."""
    worst = [
        float(np.nanmax(np.abs(values), initial=0.0))
        for values in (inside.residual, inside.disagreement, inside.closed)
    ]
    word = "Certified" if inside.certified else "NOT within tolerance"
    yield (
        f"{word}: integrals missed {worst[0]:.1g} at most before closure, two rules "
        f"differ by {worst[1]:.1g} on any part (tolerance {inside.tolerance:.1g}); "
        f"{worst[2]:.1g} was closed."
    )
    if inside.by == "source":
        yield "A token's state already mixes earlier tokens: read from, not caused by."
    for reason in dict.fromkeys(inside.reasons.values()):
        count = sum(1 for other in inside.reasons.values() if other == reason)
        yield f"Not opened by {inside.by}: {count} segments ({reason})."
