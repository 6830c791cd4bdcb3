"""How often a method points to what was planted."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

import iglens

from .mechanisms import Planted
from .numbers import KEYS, TUNED_ON, Numbers, all_numbers
from .plan import QUESTIONS, Plan, Prompt


@dataclass(frozen=True)
class Score:
    """One method on one prompt, against one plan.

    Attributes:
        mechanism: What was planted.
        method: Who was asked.
        level: "layer", "part" or "head".
        question: "readable" or "cause".
        planned: Number of planned places.
        places: Number of places to choose from.
        first: Whether the largest number is at a planned place.
        found: Share of the planned places among as many largest numbers.
    """

    mechanism: str
    method: str
    level: str
    question: str
    planned: int
    places: int
    first: bool
    found: float


@dataclass(frozen=True)
class Check:
    """Whether a model does what its plan says.

    Attributes:
        mechanism: What was planted.
        right: Share of prompts on which the model finds the token.
        probability: What it gives the token, on average.
        without_cause: The same share without one of the layers that do the work, for
            the layer without which it is largest.
        without_other: Without one of the others, for which it is smallest.
    """

    mechanism: str
    right: float
    probability: float
    without_cause: float
    without_other: float


def check(subject: Planted, prompts: Sequence[Prompt]) -> Check:
    """Take every block out of a model by a plain hook, and see what it still does."""
    right, probability = answers(subject, prompts)
    causes = {site.layer for site in subject.plan.cause}
    layers = range(1, len(subject.model.transformer.h) + 1)
    without = {layer: answers(subject, prompts, skip=layer)[0] for layer in layers}
    return Check(
        subject.name,
        right,
        probability,
        max(without[layer] for layer in causes),
        min(without[layer] for layer in set(layers) - causes),
    )


def answers(
    subject: Planted, prompts: Sequence[Prompt], skip: int | None = None
) -> tuple[float, float]:
    """Share of prompts answered rightly, and the mean probability of the answers.

    Args:
        subject: The model.
        prompts: Texts of one length.
        skip: Layer whose output is its input.
    """
    ids = torch.tensor([prompt.ids for prompt in prompts])
    targets = torch.tensor([prompt.target for prompt in prompts])
    handles = []
    if skip is not None:
        block = subject.model.transformer.h[skip - 1]
        handles.append(block.register_forward_hook(_unchanged))
    with torch.no_grad():
        p = subject.model(ids).logits[:, -1].softmax(-1)
    for handle in handles:
        handle.remove()
    given = p.gather(1, targets[:, None]).mean()
    return float((p.argmax(1) == targets).double().mean()), float(given)


def _unchanged(
    module: torch.nn.Module, given: tuple[torch.Tensor, ...], output: object
) -> object:
    """A block's input in the place of its output."""
    return (given[0], *output[1:]) if isinstance(output, tuple) else given[0]


def scores(subject: Planted, n_prompts: int, seed: int) -> list[Score]:
    """Every method on every prompt of a model."""
    decoder = iglens.Decoder(subject.model)
    asked = subject.prompts(n_prompts, seed)
    said = all_numbers(decoder, asked, subject.prompts(TUNED_ON, seed + 1))
    return [
        score
        for numbers in said
        for each in numbers
        for score in score_of(subject.name, subject.plan, each)
    ]


def score_of(mechanism: str, plan: Plan, numbers: Numbers) -> Iterator[Score]:
    """One method's numbers against both plans; nothing where none has such a place."""
    key = KEYS[numbers.level]
    for question in QUESTIONS:
        planned = {key(site) for site in plan.sites(question)} & set(numbers.values)
        if not planned:
            continue
        order = _largest_first(numbers.values.items())
        hits = planned.intersection(order[: len(planned)])
        yield Score(
            mechanism,
            numbers.method,
            numbers.level,
            question,
            len(planned),
            len(order),
            order[0] in planned,
            len(hits) / len(planned),
        )


def _largest_first(values: Iterable[tuple]) -> list:
    """Places by their numbers; what is not finite comes last."""
    known = [(key, value if np.isfinite(value) else -np.inf) for key, value in values]
    return [key for key, _ in sorted(known, key=lambda pair: -pair[1])]
