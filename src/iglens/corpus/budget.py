"""How many texts run at once: batches of like lengths within a memory budget."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import ArgumentError
from ..explaining.plan import Plan
from ..model.capture import WIDTHS
from ..model.decoder import Decoder

BATCH_MEMORY = 1 << 30
"""Bytes that a batch may take beside the weights, by estimate."""

MOST_TEXTS = 64
"""Texts per batch at most: beyond that nothing gets faster."""

_LOGIT_COPIES = 3
"""Times that logits are held at explained positions: the model's, the trace's, and
those of texts that are read together."""


@dataclass(frozen=True)
class Budget:
    """What texts cost, and what there is.

    Attributes:
        memory: Bytes a batch may take.
        width: Numbers in a state.
        vocab_size: Numbers in a row of logits.
        n_points: States that are kept per explained position.
        element: Bytes of a number in the model.
        most_texts: Texts per batch at most.
    """

    memory: int
    width: int
    vocab_size: int
    n_points: int
    element: int
    most_texts: int = MOST_TEXTS

    @classmethod
    def of(
        cls,
        decoder: Decoder,
        memory: int = BATCH_MEMORY,
        most_texts: int = MOST_TEXTS,
    ) -> "Budget":
        """The budget for a model.

        Raises:
            ArgumentError: If there is nothing in it.
        """
        for name, number in {"memory": memory, "most_texts": most_texts}.items():
            if number < 1:
                raise ArgumentError(f"`{name}` is {number}; it must be at least 1.")
        readout = decoder.readout
        return cls(
            memory,
            readout.d_model,
            readout.vocab_size,
            decoder.n_layers + 1,
            readout.dtype.itemsize,
            most_texts,
        )

    def batches(self, plans: Sequence[Plan]) -> Iterator[list[int]]:
        """Indices of the plans that run together, longest texts first.

        A batch that does not fit has one text.
        """
        order = sorted(range(len(plans)), key=lambda i: (-len(plans[i].ids), i))
        some: list[int] = []
        for index in order:
            wider = [plans[i] for i in (*some, index)]
            full = len(some) == self.most_texts or self.bytes_of(wider) > self.memory
            if some and full:
                yield some
                some = []
            some.append(index)
        if some:
            yield some

    def bytes_of(self, plans: Sequence[Plan]) -> int:
        """About what running some plans at once takes."""
        longest = max(len(plan.ids) for plan in plans)
        first = min(plan.positions[0] for plan in plans) - 1
        n_rows = sum(len(plan.positions) for plan in plans)
        passing = len(plans) * longest * self.width * WIDTHS
        logits = len(plans) * (longest - first) + _LOGIT_COPIES * n_rows
        states = 2 * n_rows * self.n_points * self.width
        return self.element * (passing + states + logits * self.vocab_size)
