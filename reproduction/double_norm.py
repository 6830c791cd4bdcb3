"""The last state normed twice: what is then explained, and who notices."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

import iglens
from iglens.trace import Trace

from .section import Row, Section, Size, mean_and_worst, percent, small
from .subjects import Fact, Subject

AGREE = 5e-5
"""Two probabilities that differ by less look the same."""


@dataclass(frozen=True)
class Twice:
    """One prompt.

    Attributes:
        model: The model's probability.
        twice: What is read from the state that is normed twice.
        right: Total variation between what is read from the state as it is and the
            model's own distribution.
        apart: The same of the state that is normed twice.
        same: Share of the vocabulary on which they agree within `AGREE`.
        missed: What the sum of the credits misses of what they seem to explain.
        refused: Whether iglens refuses the states.
    """

    model: float
    twice: float
    right: float
    apart: float
    same: float
    missed: float
    refused: bool


def _once(subject: Subject, fact: Fact) -> Twice:
    """Explain a trace whose last state already carries the final norm."""
    decoder = subject.decoder
    good = decoder.trace(list(fact.ids), [len(fact.ids)])
    readout = decoder.readout
    assert isinstance(readout, iglens.LinearReadout)  # its norm can be called
    normed = readout.norm(good.states[-1], torch.float32)
    states = torch.cat([good.states[:-1], normed[None].to(good.states.dtype)])
    wrong = replace(good, states=states)
    target = iglens.Target((fact.target,), str(fact.target))
    right = iglens.attribute(good, target, diagnostics=False)
    result = iglens.attribute(wrong, target, strict=False, diagnostics=False)
    once, twice = (
        readout.logits(state).double().softmax(-1)[0]
        for state in (good.states[-1], states[-1])
    )
    return Twice(
        float(once[fact.target]),
        float(result.final[0]),
        float(right.fidelity[0]),
        float(result.fidelity[0]),
        float(((once - twice).abs() < AGREE).double().mean()),
        float(result.completeness[0]),
        _refused(wrong, target),
    )


def _refused(trace: Trace, target: iglens.Target) -> bool:
    """Whether the check of the readout says no."""
    try:
        iglens.attribute(trace, target, diagnostics=False)
    except iglens.FidelityError:
        return True
    return False


def _rows(subject: Subject, size: Size) -> Iterator[Row]:
    """All prompts together."""
    found = [_once(subject, fact) for fact in subject.facts]
    wrong = [each.twice - each.model for each in found]
    yield (
        str(len(found)),
        f"{np.mean([each.model for each in found]):.2f}",
        f"{np.mean([each.twice for each in found]):.2f}",
        mean_and_worst(wrong),
        small(max(each.right for each in found)),
        small(float(np.mean([each.apart for each in found]))),
        percent(float(np.mean([each.same for each in found]))),
        small(max(abs(each.missed) for each in found)),
        percent(float(np.mean([each.refused for each in found]))),
    )


SECTION = Section(
    "double-norm",
    lambda size: (
        "prompts",
        "p, model",
        "p, normed twice",
        "error: mean (largest)",
        "total variation, normed once, at most",
        "normed twice, mean",
        "vocabulary within 5e-5",
        "sum of credits misses, at most",
        "refused",
    ),
    _rows,
)
