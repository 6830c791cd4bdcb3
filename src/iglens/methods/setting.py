"""One token of one text, on which methods are run one by one and counted."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import torch

from ..attribution.path import Level
from ..errors import ArgumentError, UnsupportedModelError
from ..model.decoder import Decoder
from ..readout.lens import AbstractLens
from ..records import Attribution, Target, Unit
from ..records.comparison import Entry
from ..trace import Trace
from .case import AbstractMethod, Case


@dataclass(frozen=True, eq=False)
class Setting:
    """What methods are asked, whichever they are.

    Attributes:
        decoder: The model.
        ids: The text.
        position: Index of the predicted token.
        target: What is explained there.
        unit: Unit of levels, where a method has a choice.
        lens: A fitted lens, or None.
        n_steps: Steps of the methods that integrate.
        precision: Dtype of the readout; None for float32 at least.
        strict: Refuse what cannot be verified.
    """

    decoder: Decoder
    ids: tuple[int, ...]
    position: int
    target: Target
    unit: Unit = "probability"
    lens: AbstractLens | None = None
    n_steps: int = 32
    precision: torch.dtype | None = None
    strict: bool = True

    def __post_init__(self) -> None:
        """Refuse an integral without steps.

        Raises:
            ArgumentError: If it has none.
        """
        if self.n_steps < 1:
            raise ArgumentError(f"`n_steps` is {self.n_steps}; it must be at least 1.")

    def warm(self, methods: Iterable[AbstractMethod]) -> None:
        """Find out what is found out once per model, and is not counted.

        How blocks are built, and whether runs may share a batch.
        """
        _ = self.decoder.batch_safe
        for by in {method.by for method in methods} - {"layer"}:
            self.run(by)

    def run(self, by: Level = "layer") -> Trace:
        """The states, in a run of the model."""
        trace = self.decoder.trace(self.ids, [self.position], by=by)
        return trace if self.precision is None else trace.with_precision(self.precision)

    def case(self, by: Level = "layer") -> Case:
        """What one method is given."""
        return Case(
            partial(self.run, by),
            self.target,
            self.unit,
            lens=self.lens,
            n_steps=self.n_steps,
            strict=self.strict,
            decoder=self.decoder,
            ids=self.ids[: self.position],
        )

    def entry(self, method: AbstractMethod) -> Entry:
        """What one method says, run by itself, or why it cannot be had."""
        case = self.case(method.by)
        found, reason = None, None
        with case.evaluations.watching(self.decoder):
            try:
                found = method(case)
            except (ArgumentError, UnsupportedModelError) as error:
                reason = str(error)
            cost = case.evaluations.cost
        return Entry(method.name, method.title, found, reason, cost)


def setting_of(
    decoder: Decoder,
    known: Attribution,
    row: int = 0,
    *,
    lens: AbstractLens | None = None,
    n_steps: int = 32,
    precision: torch.dtype | None = None,
    strict: bool = True,
) -> Setting:
    """The token that one row of a result is of.

    Arguments as the attributes of `Setting`.
    """
    return Setting(
        decoder,
        tuple(known.token_ids.tolist()),
        int(known.positions[row]),
        known.targets[row],
        known.unit,
        lens,
        n_steps,
        precision,
        strict,
    )
