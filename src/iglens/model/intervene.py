r"""Runs of the model in which what its blocks add is scaled, skipped or replaced.

Every *column* of gates is a block, or a part of one (attention, MLP). With `h` the
state before it, `h'` the state that it makes of it, and `m` what stands in for its
update, a gate `g` hands on

    g h' + (1 - g) (h + m),

with `m = 0` unless mean updates are given: `g = 1` leaves the model alone, `g = 0`
skips the column (its output is its input) or replaces its update by a mean. Several
runs of one text share a batch, each with gates of its own. Hooks do it, and are
removed afterwards, whatever happens.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import ArgumentError, UnsupportedModelError
from .decoder import Decoder
from .injected import model_lock
from .inside.between import site_hooks
from .inside.sublayers import BlockPlan, Site
from .runner import Runner
from .stream import Stream

At = Literal["all", "last"]
"""At which tokens: all of the text, or only the last, which predicts."""


def check_at(name: str) -> At:
    """The same name, known to be one.

    Raises:
        ArgumentError: If it is none.
    """
    for known in get_args(At):
        if known == name:
            return known
    raise ArgumentError(f"`at` is {name!r}; known are {', '.join(get_args(At))}.")


SWAPPED = 0.05
"""Share of the distance between two texts' states that a swapped one may be off by."""

Handed = Callable[[int, Tensor, Tensor], Tensor | None]
"""Takes a column, the state before it and after it; gives another state after it."""


@dataclass(frozen=True)
class Column:
    """What one gate is for.

    Attributes:
        layer: Number of the block, from 1.
        part: Part of the block; None for the whole.
    """

    layer: int
    part: str | None = None


@dataclass(frozen=True, eq=False)
class Intervention:
    """A model that can be run with gates on its blocks, or on their parts.

    Attributes:
        runner: The model.
        stream: Where its residual stream runs.
        plans: How blocks split that have a column for every part.

    Raises:
        UnsupportedModelError: If what a block hands on is not what the next one takes,
            so that skipping one has no plain meaning.
    """

    runner: Runner
    stream: Stream
    plans: dict[int, BlockPlan] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse streams that something else changes between blocks."""
        if self.stream.first is not None or not self.stream.chained:
            raise UnsupportedModelError(
                f"{self.runner.name} changes the residual stream between its blocks, "
                "so that the output of a block that is skipped is not its input. It "
                "can be explained, but not audited."
            )

    @classmethod
    def of(cls, decoder: Decoder, *, parts: bool = False) -> "Intervention":
        """The same of a verified model.

        Args:
            decoder: The model.
            parts: Whether blocks that can be split get a column for every part.
        """
        plans = decoder.sublayers.blocks if parts else ()
        split = {plan.layer: plan for plan in plans if plan.is_split}
        return cls(decoder._runner, decoder.verified.stream, split)

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """What the gates are for, in order."""
        return tuple(
            column
            for layer in range(1, self.stream.n_layers + 1)
            for column in self._columns_of(layer)
        )

    def logits(
        self,
        ids: Int[Tensor, " text"],
        gates: Float[Tensor, "runs columns"],
        *,
        at: At = "all",
        means: Float[Tensor, "columns d_model"] | None = None,
        gradients: bool = False,
    ) -> Float[Tensor, "runs vocab"]:
        """Logits after the last token, once for every row of gates.

        Args:
            ids: Token ids of the text.
            gates: 1 for a column as it is, 0 for one that is skipped.
            at: Whether gates act on all tokens, or on the last one alone.
            means: Update that a closed gate puts in place of the column's own.
            gradients: Keep what it takes to differentiate with respect to the gates.

        Raises:
            ArgumentError: If there is not one gate per column.
            UnsupportedModelError: If the model no longer runs the blocks it had.
        """
        if gates.shape[1] != len(self.columns):
            raise ArgumentError(
                f"`gates` has {gates.shape[1]} columns; {self.runner.name} has "
                f"{len(self.columns)}."
            )
        mixing = _Mixing(self.stream, gates, at, means)
        texts = ids[None].repeat(len(gates), 1)
        with self._handing(mixing):
            return self.runner(texts, keep=1, gradients=gradients)[:, -1]

    def mean_updates(
        self, texts: Sequence[Int[Tensor, " _"]]
    ) -> Float[Tensor, "columns d_model"]:
        """Mean of what every column adds, over all tokens of some texts but the first.

        The state at the first token is often an outlier, and is left out where a text
        has more than one.
        """
        sums = torch.zeros(len(self.columns), self.stream.width, dtype=torch.float64)
        count = 0
        for text in texts:
            start = min(1, len(text) - 1)
            count += len(text) - start

            def add(
                column: int, before: Tensor, after: Tensor, start: int = start
            ) -> None:
                update = self.stream.to_rows(after - before)[0, start:]
                sums[column] += update.cpu().sum(0, dtype=torch.float64)

            with self._handing(add):
                self.runner(text[None], keep=1)
        return sums / count

    def update_sizes(self, ids: Int[Tensor, " text"]) -> Float[Tensor, " columns"]:
        """Length of what every column adds to the state of the last token."""
        sizes = torch.zeros(len(self.columns), dtype=torch.float64)

        def measure(column: int, before: Tensor, after: Tensor) -> None:
            update = self.stream.to_rows(after - before)[0, -1]
            sizes[column] = update.cpu().double().norm()

        with self._handing(measure):
            self.runner(ids[None], keep=1)
        return sizes

    def check_parts(self, ids: Int[Tensor, " text"], n_tokens: int) -> None:
        """Refuse blocks in which a state between parts cannot be replaced.

        Between two parts of a block, the states of a second text are put into the run
        of the first; its rest must then give what it gives in the second text's run.

        Args:
            ids: Token ids of a text.
            n_tokens: Number of token ids there are.

        Raises:
            UnsupportedModelError: If it does not: something else passes by there.
        """
        inner = [
            self._numbers_of(layer)[:-1]
            for layer, plan in self.plans.items()
            if plan.kind == "sequential"
        ]
        if not inner:
            return
        own, other = (self._states(text) for text in (ids, (ids + 1) % n_tokens))
        last = {self._numbers_of(layer)[-1] for layer in self.plans}
        for turn in range(max(map(len, inner))):
            chosen = {columns[turn] for columns in inner if turn < len(columns)}
            passed: set[int] = set()

            def swap(
                column: int,
                before: Tensor,
                after: Tensor,
                chosen: set[int] = chosen,
                passed: set[int] = passed,
            ) -> Tensor | None:
                if column in chosen:
                    passed.add(self.columns[column].layer)
                    return other[column].to(after)
                if column in last and self.columns[column].layer in passed:
                    self._check_swapped(column, after, own[column], other[column])
                    return own[column].to(after)  # the next block starts as ever
                return None

            with self._handing(swap):
                self.runner(ids[None], keep=1)

    def _check_swapped(
        self, column: int, found: Tensor, own: Tensor, other: Tensor
    ) -> None:
        """Refuse a block whose output is not that of the text it was swapped to."""
        missed, apart = (found - other).abs().max(), (own - other).abs().max()
        if float(missed) > SWAPPED * float(apart):
            layer = self.columns[column].layer
            raise UnsupportedModelError(
                f"What block {layer} of {self.runner.name} gives does not depend on "
                "the states between its parts alone, so that its parts cannot be taken "
                "out one by one. Audit whole layers instead."
            )

    def _states(self, ids: Int[Tensor, " text"]) -> dict[int, Tensor]:
        """The state after every column, in a run of one text."""
        found: dict[int, Tensor] = {}

        def keep(column: int, before: Tensor, after: Tensor) -> None:
            found[column] = after.clone()

        with self._handing(keep):
            self.runner(ids[None], keep=1)
        return found

    def _numbers_of(self, layer: int) -> list[int]:
        """Numbers of the columns of one block."""
        return [at for at, one in enumerate(self.columns) if one.layer == layer]

    def _columns_of(self, layer: int) -> tuple[Column, ...]:
        """The columns of one block."""
        if layer not in self.plans:
            return (Column(layer),)
        return tuple(Column(layer, part.name) for part in self.plans[layer].parts)

    @contextmanager
    def _handing(self, handed: Handed) -> Iterator[None]:
        """While open, what columns hand on is what `handed` makes of it."""
        passing = _Passing(self, handed)
        model, plans = self.runner.model, self.plans.values()
        handles: list[Any] = []
        with model_lock(model), site_hooks(model, self.stream, plans, passing.site):
            try:
                for block in dict.fromkeys(self.stream.blocks):
                    before = block.register_forward_pre_hook(
                        passing.begin, with_kwargs=True
                    )
                    handles += [before, block.register_forward_hook(passing.end)]
                yield
                passing.check()
            finally:
                for handle in handles:
                    handle.remove()


@dataclass(eq=False)
class _Passing:
    """One forward pass, column by column."""

    of: Intervention
    handed: Handed
    layer: int = 0
    column: int = -1
    start: Tensor = field(default_factory=lambda: torch.zeros(0))
    before: Tensor = field(default_factory=lambda: torch.zeros(0))
    vectors: list[Tensor] = field(default_factory=list)

    def begin(self, module: Any, args: Any, kwargs: Any) -> None:
        """A block begins; what it takes is kept, since models work in place."""
        self.layer += 1
        self.start = self.before = self.of.stream.taken(args, kwargs).clone()
        self.vectors = []

    def site(self, layer: int, site: Site, tensor: Tensor) -> None:
        """A part of a block has ended; whoever else holds its state sees the change."""
        plan = self.of.plans[layer]
        if plan.kind == "parallel":
            part = next(part for part in plan.parts if part.site == site)
            self.vectors.append(tensor * part.site_scale)
            return
        changed = self._next(self.before.to(tensor.device), tensor.clone())
        if changed is not None:
            tensor.copy_(changed)
        self.before = tensor.clone()

    def end(self, module: Any, args: Any, output: Any) -> Any:
        """A block ends, and its last part, or all that stand side by side."""
        given = self.of.stream.given(output)
        if given.shape != self.start.shape:
            raise UnsupportedModelError(
                f"Block {self.layer} of {self.of.runner.name} takes a stream of shape "
                f"{tuple(self.start.shape)} and gives one of {tuple(given.shape)}: it "
                "cannot be skipped."
            )
        plan = self.of.plans.get(self.layer)
        if plan is None or plan.kind != "parallel":
            changed = self._next(self.before.to(given.device), given)
        else:
            changed = self._side_by_side(given)
        return None if changed is None else self.of.stream.put(output, changed)

    def check(self) -> None:
        """Refuse a model that ran without passing all of its columns."""
        if self.column + 1 != len(self.of.columns):
            raise UnsupportedModelError(
                f"{self.of.runner.name} passed {self.column + 1} of "
                f"{len(self.of.columns)} blocks and parts: they are others than when "
                "it was verified. Make a new `Decoder` of it."
            )

    def _side_by_side(self, given: Tensor) -> Tensor | None:
        """The output of a block whose parts all add to what it takes."""
        start = self.start.to(given.device)
        vectors = [vector.to(given.device) for vector in self.vectors]
        rest = given - start - sum(vectors)
        total, moved = given, False
        for vector in (*vectors, rest):
            changed = self._next(start, start + vector)
            if changed is not None:
                total, moved = total + (changed - (start + vector)), True
        return total if moved else None

    def _next(self, before: Tensor, after: Tensor) -> Tensor | None:
        """What the next column hands on; None for what it gave."""
        self.column += 1
        return self.handed(self.column, before, after)


@dataclass(frozen=True, eq=False)
class _Mixing:
    """Gates at work: see the head of this file."""

    stream: Stream
    gates: Float[Tensor, "runs columns"]
    at: At
    means: Float[Tensor, "columns d_model"] | None

    def __call__(self, column: int, before: Tensor, after: Tensor) -> Tensor | None:
        """The state that a column hands on; None where every gate is open."""
        own = self.gates[:, column]
        if not own.requires_grad and bool((own == 1).all()):
            return None
        if before.shape[self.stream.batch_axis] != len(own):
            raise UnsupportedModelError(
                "The residual stream does not hold one text for each that the model "
                "was given, so runs with several gates cannot share a batch."
            )
        shape = [1] * before.dim()
        shape[self.stream.batch_axis] = len(own)
        dtype = torch.promote_types(after.dtype, torch.float32)
        gate = own.to(after.device, dtype).view(shape)
        closed = before if self.means is None else before + self._mean(column, before)
        mixed = (gate * after + (1 - gate) * closed).to(after.dtype)
        if self.at == "all":
            return mixed
        kept = after.clone()
        place = self.stream.tokens_in_front(mixed)[:, -1]
        self.stream.tokens_in_front(kept)[:, -1] = place
        return kept

    def _mean(self, column: int, like: Tensor) -> Tensor:
        """A column's mean update, for every token."""
        assert self.means is not None  # else nobody asks
        rows = torch.zeros_like(like)
        view = self.stream.tokens_in_front(rows)
        view.copy_(self.means[column].to(rows).view(view.shape[2:]).expand_as(view))
        return rows
