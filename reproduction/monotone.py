"""How often what the logit lens reads goes back on its way."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

import iglens

from .section import Row, Section, Size, percent
from .subjects import Subject

FALLS = (0.01, 0.1)
GENERATED = 8
"""Tokens that each prompt is continued with."""


def _rows(subject: Subject, size: Size) -> Iterator[Row]:
    """Greedy continuations of all prompts, token by token."""
    results = [
        iglens.explain(
            subject.decoder, list(fact.ids), max_new_tokens=GENERATED, diagnostics=False
        )
        for fact in subject.facts
    ]
    credits = np.concatenate([result.credits for result in results])
    floor = np.concatenate([result.noise_floor for result in results])
    back = steps_back(credits)
    worst = back.max(axis=1)
    churn = np.abs(credits).sum(1) / np.abs(credits.sum(1))
    yield (
        str(len(credits)),
        percent(float((worst > floor).mean())),
        *(percent(float((worst > fall).mean())) for fall in FALLS),
        f"{(back > floor[:, None]).sum(1).mean():.1f} of {subject.n_layers}",
        f"{np.median(churn):.2f}",
    )


def steps_back(
    credits: Float[np.ndarray, "tokens layers"],
) -> Float[np.ndarray, "tokens layers"]:
    """By how much each layer goes against the direction of the whole.

    Example:
        >>> steps_back(np.array([[0.5, -0.25, 0.5], [0.5, -1.0, 0.0]])).tolist()
        [[0.0, 0.25, 0.0], [0.5, 0.0, 0.0]]
    """
    signs = np.sign(credits.sum(1, keepdims=True))
    return np.maximum(0.0, -signs * credits)


SECTION = Section(
    "monotone",
    lambda size: (
        "tokens",
        "not monotone",
        *(f"a step back above {fall}" for fall in FALLS),
        "layers that step back, mean",
        "steps / way, median",
    ),
    _rows,
)
