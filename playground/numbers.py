"""What every method says of one prompt, by layer, by part and by head."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

import iglens

from .plan import Prompt, Site

Key = tuple[int, str] | tuple[int, int] | tuple[int]
"""A layer; or a layer and a part; or a layer and a head."""

KEYS: dict[str, Callable[[Site], Key]] = {
    "layer": lambda site: (site.layer,),
    "part": lambda site: (site.layer, site.part),
    "head": lambda site: (site.layer, site.head),
}
"""What a planned site is called at every level."""

TUNED_ON = 400
"""Texts that a lens is fitted on."""

RIDGE = 0.01
"""Its penalty."""

AUDITS = {
    "skip effect": {},
    "skip effect, last token": {"at": "last"},
    "mean ablation": {"ablation": "mean"},
}
"""What is done to the model when it is audited."""


@dataclass(frozen=True)
class Numbers:
    """One method's numbers for one prompt.

    Attributes:
        method: Its title.
        level: "layer", "part" or "head".
        values: A number for every layer, part or head; the largest is where the method
            points to.
    """

    method: str
    level: str
    values: dict[Key, float]


def all_numbers(
    decoder: iglens.Decoder, prompts: Sequence[Prompt], learn: Sequence[Prompt]
) -> list[list[Numbers]]:
    """What every method says, prompt by prompt.

    Args:
        decoder: The model.
        prompts: The texts.
        learn: Texts to fit a lens on.
    """
    lens = iglens.fit_lens(decoder, [list(p.ids) for p in learn], ridge=RIDGE)
    said = [
        [*_compared(decoder, prompt, lens), *_opened(decoder, prompt)]
        for prompt in prompts
    ]
    for own, more in zip(said, _audited(decoder, prompts), strict=True):
        own += more
    return said


def _compared(
    decoder: iglens.Decoder, prompt: Prompt, lens: iglens.AffineLens
) -> Iterable[Numbers]:
    """Every method of the comparison; of levels, what each layer adds to them."""
    found = iglens.compare(
        decoder, list(prompt.ids), target=prompt.target, lens=lens, audit=False
    )
    for entry in found.entries:
        if entry.found is None:
            raise RuntimeError(f"{entry.title}: {entry.reason}")
        said, values = entry.found, entry.found.values
        if said.kind == "reading":
            values = np.diff(values, prepend=found.baseline)
        yield from _levels(entry.title, said.layers, said.parts, values)


def _levels(
    title: str, layers: Sequence[int], parts: Sequence[str], values: np.ndarray
) -> Iterable[Numbers]:
    """One method at every level that it goes down to."""
    by_layer: dict[Key, float] = {}
    for layer, value in zip(layers, values.tolist(), strict=True):
        by_layer[layer,] = by_layer.get((layer,), 0.0) + value
    yield Numbers(title, "layer", by_layer)
    named = list(zip(layers, parts, values.tolist(), strict=True))
    heads = {
        (layer, int(part.removeprefix("head "))): value
        for layer, part, value in named
        if part.startswith("head ")
    }
    if heads:
        yield Numbers(title, "head", dict(heads))
    elif "attention" in parts:
        yield Numbers(title, "part", {(at, part): value for at, part, value in named})


def _opened(decoder: iglens.Decoder, prompt: Prompt) -> Iterable[Numbers]:
    """IG-Lens below the layer."""
    found = iglens.explain(decoder, list(prompt.ids), target=prompt.target, by="head")
    parts = {
        (segment.layer, segment.part): float(credit)
        for segment, credit in zip(found.segments, found.credits[0], strict=True)
    }
    yield Numbers("IG-Lens", "part", dict(parts))
    inside = found.components
    assert inside is not None  # it was asked for
    heads = {
        (found.segments[segment].layer, int(index)): float(credit)
        for segment, kind, index, credit in zip(
            inside.segments,
            inside.kinds,
            np.atleast_2d(inside.indices)[0],
            inside.credits[0],
            strict=True,
        )
        if kind == "head"
    }
    yield Numbers("IG-Lens", "head", dict(heads))


def _audited(
    decoder: iglens.Decoder, prompts: Sequence[Prompt]
) -> Iterable[list[Numbers]]:
    """What happens without layers, and without parts of them; prompt by prompt."""
    asked = [list(prompt.ids) for prompt in prompts]
    targets = [prompt.target for prompt in prompts]
    found: list[list[Numbers]] = [[] for _ in prompts]

    def note(title: str, by: str, audit: iglens.Audit, numbers: np.ndarray) -> None:
        level = "layer" if by == "layer" else "part"
        keys = [KEYS[level](Site(s.layer, s.part)) for s in audit.segments]
        for own, row in zip(found, numbers.tolist(), strict=True):
            own.append(Numbers(title, level, dict(zip(keys, row, strict=True))))

    for by in ("layer", "sublayer"):
        for title, how in AUDITS.items():
            audit = iglens.audit(decoder, asked, target=targets, by=by, **how)
            note(title, by, audit, audit.effects.effects)
        note("update size", by, audit, audit.sizes)
    audit = iglens.audit(decoder, asked, target=targets, by="sublayer", gates=True)
    assert audit.gates is not None  # they were asked for
    note("gate path", "sublayer", audit, audit.gates.effects)
    return found
