"""A model that explains rows of a corpus: batch by batch, and no row stops the rest."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch

from ..errors import ArgumentError, IGLensError
from ..explaining import Reader
from ..explaining.plan import Plan, planned, run_plans
from ..model.decoder import Decoder
from ..model.runner import in_one_line
from ..records import Attribution, Target
from .budget import Budget
from .items import Item
from .rows import Explained, table

if TYPE_CHECKING:
    import pyarrow

Null = Literal["none", "targets", "weights"]
"""What a run is a null of: targets of other rows, or weights drawn anew."""


@dataclass(frozen=True)
class Failure:
    """A row that could not be explained.

    Attributes:
        index: Its place in the input.
        id: What it calls itself.
        error: Kind of the error; "input" where the row itself is none.
        reason: Why, in a sentence.
    """

    index: int
    id: str
    error: str
    reason: str


@dataclass(frozen=True, eq=False)
class ShardContent:
    """What one shard holds.

    Attributes:
        table: A row per explained token.
        segments: The path's segments, as in JSON; None if nothing was explained.
        failures: The rows that could not be explained.
        n_items: Rows of the input.
    """

    table: "pyarrow.Table"
    segments: list[dict[str, Any]] | None
    failures: list[Failure]
    n_items: int


@dataclass(frozen=True, eq=False)
class Explainer:
    """What is done with every row.

    Attributes:
        decoder: The model.
        reader: How states are read, checked.
        question: What is explained, as in `explain`, where a row does not say.
        budget: What may run at once.
        types: Type of every column of metadata.
        settings: Hash of the settings.
        strict: Whether what cannot be verified fails, or is flagged.
        shuffled: Whether rows are asked for each other's targets.
        seed: What they are shuffled by.
    """

    decoder: Decoder
    reader: Reader
    question: Mapping[str, Any]
    budget: Budget
    types: dict[str, str]
    settings: str
    strict: bool = True
    shuffled: bool = False
    seed: int = 0

    def shard(
        self, items: Sequence[Item], done: Callable[[int], None] = lambda n: None
    ) -> ShardContent:
        """Explain all rows of a shard.

        Args:
            items: The rows.
            done: Told how many more are done.
        """
        plans: dict[int, Plan] = {}
        failures: dict[int, Failure] = {}
        for place, item in enumerate(items):
            made = self._planned(item)
            if isinstance(made, Plan):
                plans[place] = made
            else:
                failures[place] = made
        if self.shuffled:
            plans = shuffled_targets(self.decoder, plans, self.seed)
        done(len(failures))
        results: dict[int, Attribution] = {}
        places = list(plans)
        for batch in self.budget.batches([plans[place] for place in places]):
            for place, found in self._explained(
                [(places[i], plans[places[i]]) for i in batch]
            ).items():
                if isinstance(found, Attribution):
                    results[place] = found
                else:
                    failures[place] = _failure(items[place], found)
            done(len(batch))
        return self._content(items, plans, results, failures)

    def _content(
        self,
        items: Sequence[Item],
        plans: Mapping[int, Plan],
        results: Mapping[int, Attribution],
        failures: Mapping[int, Failure],
    ) -> ShardContent:
        """The shard, in the order of its rows."""
        found = [
            Explained(items[p], results[p], len(plans[p].prompt_ids))
            for p in sorted(results)
        ]
        first = found[0].result.to_json() if found else None
        inside = self.reader.by not in ("layer", "sublayer")
        return ShardContent(
            table(found, self.types, self.settings, inside=inside),
            None if first is None else first["segments"],
            [failures[place] for place in sorted(failures)],
            len(items),
        )

    def _planned(self, item: Item) -> Plan | Failure:
        """What to run for a row, or why there is nothing."""
        if item.broken is not None:
            return Failure(item.index, item.id, "input", item.broken)
        own = {"target": item.target, "answer": item.answer}
        asked = {**self.question, **{k: v for k, v in own.items() if v is not None}}
        if asked.get("target") is not None and asked.get("answer") is not None:
            asked["answer" if item.target is not None else "target"] = None
        try:
            return planned(self.decoder, item.prompt, by=self.reader.by, **asked)
        except Exception as error:  # a row may hold anything
            return _failure(item, error)

    def _explained(
        self, plans: Sequence[tuple[int, Plan]]
    ) -> dict[int, Attribution | Exception]:
        """Results of some plans, or why there is none."""
        try:
            asked = run_plans(self.decoder, [plan for _, plan in plans])
            found = self.reader.of_many(self.decoder, asked, strict=self.strict)
            return {place: r for (place, _), r in zip(plans, found, strict=True)}
        except Exception as error:  # one row of many: whatever it is, the others go on
            if len(plans) == 1:
                return {plans[0][0]: error}
            step = (len(plans) + 1) // 2 if out_of_memory(error) else 1
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        parts: dict[int, Attribution | Exception] = {}
        for start in range(0, len(plans), step):
            parts |= self._explained(plans[start : start + step])
        return parts


def out_of_memory(error: BaseException) -> bool:
    """Whether an error, or what caused it, is that memory was short."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError | torch.OutOfMemoryError):
            return True
        if isinstance(cause, RuntimeError) and "allocate memory" in str(cause):
            return True  # what the allocator of a processor says
        cause = cause.__cause__
    return False


def shuffled_targets(
    decoder: Decoder, plans: Mapping[int, Plan], seed: int
) -> dict[int, Plan]:
    """The same texts, each position asked for the target of another one.

    Raises:
        ArgumentError: If targets are contrasts, or scalars of the user's own.
    """
    asked = [
        (place, position, target)
        for place, plan in plans.items()
        for position, target in _asked(decoder, plan)
    ]
    order = random.Random(seed).sample(range(len(asked)), len(asked))
    given: dict[int, list[tuple[int, Target]]] = {place: [] for place in plans}
    for at, other in zip(order, [*order[1:], *order[:1]], strict=True):
        place, position, _ = asked[at]
        given[place].append((position, asked[other][2]))
    return {
        place: replace(plan, targets=sorted(given[place], key=lambda pair: pair[0]))
        for place, plan in plans.items()
    }


def _asked(decoder: Decoder, plan: Plan) -> list[tuple[int, Target]]:
    """Position and target of every row of a plan."""
    if plan.rival is not None:
        raise ArgumentError("Contrasts have no null of shuffled targets.")
    if plan.targets is None:
        return [
            (at, Target((plan.ids[at],), decoder.token_text(plan.ids[at])))
            for at in plan.positions
            if at < len(plan.ids)
        ]
    return [
        (position, target)
        for position in plan.positions
        for target in plan.targets
        if isinstance(target, Target)
    ]


def _failure(item: Item, error: Exception) -> Failure:
    """Why a row could not be explained."""
    reason = str(error) if isinstance(error, IGLensError) else in_one_line(error)
    return Failure(item.index, item.id, type(error).__name__, reason)
