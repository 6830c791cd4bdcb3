"""How far several orders of segments agree with that of their effects."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from ..records.audit import Correlation
from ..records.effects import Effects
from ..records.ranks import correlation, spearman
from .prepared import Texts

MOST_NULLS = 20
"""Other texts' targets that a text's null is made of, at most."""

Nulls = dict[bool, Float[np.ndarray, " _"]]
"""Correlations by whether the last layer is among the segments."""


def correlations(
    methods: Mapping[str, Float[np.ndarray, "texts segments"]],
    effects: Effects,
    nulls: Mapping[str, Nulls],
    random: Mapping[str, Nulls],
    reasons: Mapping[str, str],
    seed: int,
) -> tuple[Correlation, ...]:
    """How every method's order agrees with that of the effects.

    Args:
        methods: Numbers by name.
        effects: What happens without each segment.
        nulls: By name of the method, correlations of what cannot know the target.
        random: The same, correlations of a model with random weights.
        reasons: The same, why there are no numbers.
        seed: What the bootstrap draws from.
    """
    layers = tuple(segment.layer for segment in effects.segments)
    return tuple(
        correlation(
            method,
            numbers[:, keep],
            effects.effects[:, keep],
            with_last=with_last,
            nulls=nulls[method][with_last] if method in nulls else None,
            random=random[method][with_last] if method in random else None,
            reason=reasons.get(method),
            seed=seed,
        )
        for method, numbers in methods.items()
        for with_last, keep in choices(layers)
    )


def shuffled_targets(texts: Texts, effects: Effects) -> Nulls:
    """Correlations of other texts' targets, read on each text's own states."""
    found: dict[bool, list[float]] = {True: [], False: []}
    targets = {result.targets[0].key: result.targets[0] for result in texts.results}
    for text, result in enumerate(texts.results):
        own = result.targets[0].key
        others = [other for key, other in targets.items() if key != own][:MOST_NULLS]
        if not others:
            continue
        for credits in texts.credits_of(text, others):
            for with_last, keep in choices(result.layers):
                rho = spearman(credits[keep], effects.effects[text, keep])
                found[with_last].append(rho)
    return {with_last: np.array(values) for with_last, values in found.items()}


def choices(layers: tuple[int, ...]) -> list[tuple[bool, np.ndarray]]:
    """All segments, and those below the last layer."""
    numbers = np.array(layers)
    return [(True, numbers > 0), (False, numbers < numbers.max())]
