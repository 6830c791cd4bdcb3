"""The models that everything is measured on, and what they are asked."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

import iglens
from iglens.data import prompts
from playground.kinds import KINDS

LARGE = 100_000
"""Tokens that make a vocabulary large."""

LEARNED_FROM = 400
"""Texts that the lens of a model of the playground is fitted on."""

JUDGED_ON = 60
"""Other texts that it is judged on."""


@dataclass(frozen=True)
class Fact:
    """A prompt, and the token that follows.

    Attributes:
        ids: Token ids of the prompt.
        target: Id of the first token of its answer.
    """

    ids: tuple[int, ...]
    target: int


@dataclass(frozen=True, eq=False)
class Subject:
    """A model, and what it knows.

    Attributes:
        name: What to call it.
        decoder: The model.
        facts: Prompts whose answer is what the model goes on with.
        asked: Number of prompts that were tried.
        known: Number of those that were answered.
        texts: What a lens is fitted on; None for text that the model writes.
        judged: What it is judged on; None for other text that the model writes.
    """

    name: str
    decoder: iglens.Decoder
    facts: tuple[Fact, ...]
    asked: int
    known: int
    texts: tuple[tuple[int, ...], ...] | None = None
    judged: tuple[tuple[int, ...], ...] | None = None

    @property
    def large(self) -> bool:
        """Whether its vocabulary makes every reading dear, so that less is read."""
        return self.decoder.readout.vocab_size > LARGE

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.decoder.n_layers

    def few(self, count: int) -> tuple[Fact, ...]:
        """The first prompts; only one where readings are dear."""
        return self.facts[: 1 if self.large else count]

    @cached_property
    def lens(self) -> iglens.AffineLens:
        """The default fit."""
        texts = None if self.texts is None else list(self.texts)
        return iglens.fit_lens(self.decoder, texts)


def real(name: str, n_facts: int, seed: int) -> Subject:
    """An embedded model, and a sample of the factual prompts that it can answer.

    Args:
        name: "smollm2" or "gemma3-270m".
        n_facts: Size of the sample.
        seed: What it is drawn from.
    """
    decoder = iglens.Decoder.from_pretrained(name)
    facts = list(_factual(decoder))
    known = [fact for fact in facts if _answer(decoder, fact) == fact.target]
    order = np.random.default_rng(seed).permutation(len(known))[:n_facts]
    chosen = tuple(known[at] for at in order)  # so that the first few are a sample too
    return Subject(name, decoder, chosen, len(facts), len(known))


def planted(name: str, n_facts: int, seed: int) -> Subject:
    """A model of the playground.

    Args:
        name: Which kind.
        n_facts: Number of prompts.
        seed: Of the model, and of prompts.
    """
    subject = KINDS[name](seed)
    asked = [Fact(p.ids, p.target) for p in subject.prompts(n_facts, seed)]
    texts, judged = (
        tuple(p.ids for p in subject.prompts(count, seed + further))
        for further, count in ((1, LEARNED_FROM), (2, JUDGED_ON))
    )
    decoder = iglens.Decoder(subject.model)
    known = tuple(fact for fact in asked if _answer(decoder, fact) == fact.target)
    return Subject(name, decoder, known, len(asked), len(known), texts, judged)


def _factual(decoder: iglens.Decoder) -> Iterator[Fact]:
    """Factual prompts, with the first token of their answer."""
    for each in prompts():
        ids = decoder.encode(each["prompt"])
        whole = decoder.encode(each["prompt"] + each["answer"])
        if each["kind"] == "factual" and whole[: len(ids)] == ids:
            yield Fact(tuple(ids), whole[len(ids)])


def _answer(decoder: iglens.Decoder, fact: Fact) -> int:
    """What the model goes on with."""
    with torch.no_grad():
        logits = decoder.model(torch.tensor([fact.ids])).logits
    return int(logits[0, -1].argmax())


SUBJECTS: dict[str, Callable[[int, int], Subject]] = {
    "smollm2": lambda n, seed: real("smollm2", n, seed),
    "gemma3-270m": lambda n, seed: real("gemma3-270m", n, seed),
    "induction, trained": lambda n, seed: planted("induction, trained", n, seed),
}
"""Of the full form: a Llama, a Gemma, and a GPT-2 that was trained here."""

SHORT: dict[str, Callable[[int, int], Subject]] = {
    "lookup": lambda n, seed: planted("lookup", n, seed),
    "move, then read": lambda n, seed: planted("move, then read", n, seed),
}
"""Of the short form: planted in no time."""
