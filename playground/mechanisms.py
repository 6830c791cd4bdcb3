"""What is planted: five ways to come by a token, each in layers drawn from a seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import GPT2LMHeadModel

from .canvas import LENGTH, N_HEADS, N_LAYERS, Canvas
from .plan import Plan, Prompt, Site

BEGIN, ASK = 0, 1
FILLERS = tuple(range(2, 8))
SUBJECTS = tuple(range(8, 16))
ANSWERS = tuple(range(16, 24))
DECOYS = tuple(range(24, 32))
LETTERS = SUBJECTS + ANSWERS + DECOYS

AMOUNT = 2.0
"""Length of what a mechanism writes for the head of the model to read."""

LOUDER = 1.5
"""How many times as much is written of what will be erased."""

N_LOUD = 2
"""Other layers that write as much, in directions that nothing reads."""


@dataclass(frozen=True, eq=False)
class Planted:
    """A model that does one known thing.

    Attributes:
        name: Of the mechanism.
        model: The model.
        plan: Where it does it.
        prompts: Draws that many texts, from a seed.
    """

    name: str
    model: GPT2LMHeadModel
    plan: Plan
    prompts: Callable[[int, int], list[Prompt]]


@dataclass(eq=False)
class _Job:
    """A canvas, and where to plant what."""

    canvas: Canvas
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    texts: Int[Tensor, "texts length"]
    answers: tuple[int, ...]

    def look_up(self, at: int, write: Tensor, amount: float = AMOUNT) -> Site:
        """A head that copies the subject, translated, to the token that asks."""
        canvas, (layer, head) = self.canvas, (self.layers[at], self.heads[at])
        subjects = canvas.token[list(SUBJECTS)]
        canvas.attend(
            layer,
            head,
            self.texts,
            query=canvas.token[[ASK]],
            key=subjects.sum(0, keepdim=True),
            read=subjects,
            write=write,
            amount=amount,
        )
        return Site(layer, "attention", head)

    def translate(self, at: int, read: Tensor, write: Tensor, amount: float) -> Site:
        """An MLP that writes what it reads in other words."""
        layer = self.layers[at]
        self.canvas.translate(layer, self.texts, read=read, write=write, amount=amount)
        return Site(layer, "mlp")

    @property
    def said(self) -> Tensor:
        """What the head of the model reads as the answers, subject by subject."""
        return self.canvas.spoken[list(self.answers)]


def _lookup(job: _Job) -> Plan:
    """One head finds the subject and writes its answer."""
    site = job.look_up(0, job.said)
    return Plan((site,), (site,))


def _induction(job: _Job) -> Plan:
    """One head notes what came before every token; another finds the note."""
    canvas, letters = job.canvas, list(LETTERS)
    first, second = zip(job.layers, job.heads, strict=True)
    canvas.attend(
        *first,
        job.texts,
        query=canvas.place[1:],
        key=canvas.place[:-1],
        read=canvas.token[letters],
        write=canvas.hidden[letters],
        amount=1.0,
    )
    canvas.attend(
        *second,
        job.texts,
        query=canvas.token[letters],
        key=canvas.hidden[letters],
        read=canvas.token[letters],
        write=canvas.spoken[letters],
        amount=AMOUNT,
    )
    sites = [Site(layer, "attention", head) for layer, head in (first, second)]
    return Plan((sites[1],), tuple(sites))


def _erased_rival(job: _Job) -> Plan:
    """A wrong token is written louder than the right one, and erased at the end."""
    wrong = job.canvas.spoken[list(DECOYS)]
    job.look_up(0, wrong, LOUDER * AMOUNT)
    right = job.look_up(1, job.said)
    erased = job.translate(2, wrong, wrong, -1.0)
    return Plan((erased,), (right, erased))


def _erased_answer(job: _Job) -> Plan:
    """The right token is written, erased, and written again."""
    first = job.look_up(0, job.said, LOUDER * AMOUNT)
    job.translate(1, job.said, job.said, -1.0)
    again = job.look_up(2, job.said)
    return Plan((first, again), (again,))


def _move_then_read(job: _Job) -> Plan:
    """The answer is moved in words that the head cannot read, and then translated."""
    moved = job.canvas.hidden[list(job.answers)]
    carrier = job.look_up(0, moved)
    reader = job.translate(1, moved, job.said, 1.0)
    return Plan((reader,), (carrier, reader))


_PLANTING: dict[str, tuple[int, Callable[[_Job], Plan]]] = {
    "lookup": (1, _lookup),
    "induction": (2, _induction),
    "move, then read": (2, _move_then_read),
    "rival erased": (3, _erased_rival),
    "answer erased": (3, _erased_answer),
}
MECHANISMS = tuple(_PLANTING)
"""Their names, in the order of the table."""


def planted(name: str, seed: int) -> Planted:
    """A model with one of the mechanisms, in layers and heads drawn from a seed.

    Args:
        name: One of `MECHANISMS`.
        seed: Of everything that is drawn.
    """
    n_layers, plant = _PLANTING[name]
    source = np.random.default_rng([MECHANISMS.index(name), seed])
    order = 1 + source.permutation(N_LAYERS)
    layers, others = sorted(order[:n_layers]), order[n_layers:]
    heads = source.integers(0, N_HEADS, n_layers)
    answers = tuple(source.permutation(ANSWERS).tolist())
    draw = _letters if name == "induction" else partial(_facts, answers)
    canvas = Canvas(int(source.integers(2**31)))
    for layer in others[:N_LOUD].tolist():
        canvas.distract(layer, LOUDER * AMOUNT)
    texts = torch.tensor([prompt.ids for prompt in draw(64, seed)])
    places = tuple(map(int, layers)), tuple(map(int, heads))
    plan = plant(_Job(canvas, *places, texts, answers))
    return Planted(name, canvas.model, plan, draw)


def _facts(answers: Sequence[int], count: int, seed: int) -> list[Prompt]:
    """Fillers with one subject among them, and then the token that asks."""
    source = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        ids = source.choice(FILLERS, LENGTH).tolist()
        which = int(source.integers(len(SUBJECTS)))
        ids[0], ids[-1] = BEGIN, ASK
        ids[int(source.integers(1, LENGTH - 1))] = SUBJECTS[which]
        found.append(Prompt(tuple(ids), answers[which]))
    return found


def _letters(count: int, seed: int) -> list[Prompt]:
    """Different letters, and then one of them again."""
    source = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        letters = source.choice(LETTERS, LENGTH - 2, replace=False).tolist()
        at = int(source.integers(len(letters) - 1))
        found.append(Prompt((BEGIN, *letters, letters[at]), letters[at + 1]))
    return found
