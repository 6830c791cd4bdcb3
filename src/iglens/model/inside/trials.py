"""Trying modules out inside one forward pass, on what they are given there."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from ..attention import intercepted_attention
from ..boundaries import boundaries
from ..runner import Runner
from ..stream import Stream
from ..structure import Place, tensors
from .dataflow import ModuleCall
from .experiments import (
    Case,
    frozen,
    gates_alone,
    linear_width,
    mixes_tokens,
    separate_heads,
)

Key = tuple[int, str, int]
"""Layer number of a block, name of a module, number of its call within the block."""


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked of one module call.

    Attributes:
        call: The call.
        returned: Places of the outputs that lead on to the next state.
        writer: The call, in it or itself, that may write the part's update.
        attends: Whether heads are asked for.
    """

    call: ModuleCall
    returned: tuple[Place, ...]
    writer: ModuleCall | None = None
    attends: bool = False


@dataclass(eq=False)
class Answer:
    """What was found for one module call.

    Attributes:
        mixes: Whether later tokens depend on earlier ones; None if it cannot be told.
        width: Numbers per token that the writer takes, if it maps each token's vector
            alone and linearly.
        heads: Number of heads, if each has its own piece of the writer's input.
        heads_reason: Why there is none.
        gated: Whether the writer takes what heads read, times factors at most.
    """

    mixes: bool | None = None
    width: int | None = None
    heads: int | None = None
    heads_reason: str | None = None
    gated: bool = False


def key(call: ModuleCall) -> Key:
    """Which call this is."""
    return call.block, call.name, call.number


def try_modules(
    runner: Runner, stream: Stream, ids: Tensor, questions: Sequence[Question]
) -> dict[Key, Answer]:
    """Ask all questions in one forward pass of one text."""
    trial = _Trial(stream, questions)
    with (
        boundaries(stream, trial.boundary, lambda: trial.trying),
        trial.watching(),
        intercepted_attention(trial.attend),
    ):
        runner(ids)
    return trial.answers


class _Trial:
    """Watches one forward pass and tries modules as they return."""

    def __init__(self, stream: Stream, questions: Sequence[Question]) -> None:
        """Take the questions; at most one about a call."""
        self.answers = {key(question.call): Answer() for question in questions}
        self._questions = {key(question.call): question for question in questions}
        self._writers = {
            key(question.writer): question.call
            for question in questions
            if question.writer is not None
        }
        self._stream = stream
        self._block = self._tokens = 0
        self._counts: dict[str, int] = defaultdict(int)
        self._running: list[tuple[Key, Any, int]] = []
        self.trying = False
        self._attended: list[tuple[int, ...]] = []
        self._changed_head: int | None = None
        self._written: dict[str, Tensor] = {}
        self._read = torch.empty(0)

    def boundary(self, state: Tensor) -> None:
        """The next block begins."""
        self._block += 1
        self._tokens = state.shape[self._stream.time_axis]
        self._counts.clear()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While open, the calls that are asked for are tried."""
        calls = [question.call for question in self._questions.values()]
        calls += [q.writer for q in self._questions.values() if q.writer is not None]
        handles: list[Any] = []
        try:
            for name, module in {call.name: call.module for call in calls}.items():
                begin, end = self._hooks(name)
                before = module.register_forward_pre_hook(begin, with_kwargs=True)
                handles += [before, module.register_forward_hook(end)]
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hooks(self, name: str) -> tuple[Callable[..., None], Callable[..., None]]:
        """What runs before and after the module of that name."""

        def begin(module: nn.Module, args: Any, kwargs: Any) -> None:
            given = frozen((args, kwargs))
            self._written[name] = next(
                (t for _, t in tensors(given) if t.is_floating_point()), torch.empty(0)
            )
            if not self.trying:
                called = (self._block, name, self._counts[name])
                self._running.append((called, given, len(self._attended)))
                self._counts[name] += 1

        def end(module: nn.Module, args: Any, output: Any) -> None:
            if self.trying:
                return
            called, given, before = self._running.pop()
            self.trying = True
            try:
                self._try(module, called, given, output, self._attended[before:])
            finally:
                self.trying = False

        return begin, end

    def attend(
        self,
        function: Callable[..., Any],
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Call an attention function; change one head of what it gives if asked to."""
        output = function(module, *args, **kwargs)
        mixed = output[0]
        if not self.trying:
            self._attended.append(tuple(mixed.shape))
            self._read = mixed.clone()
        elif self._changed_head is not None:
            mixed = mixed.clone()
            mixed[:, :, self._changed_head] = 1 - 2 * mixed[:, :, self._changed_head]
        return (mixed, *output[1:])

    def _try(
        self,
        module: nn.Module,
        called: Key,
        given: Any,
        output: Any,
        attended: list[tuple[int, ...]],
    ) -> None:
        """Try what is asked of one call."""
        case = Case(module, given, output, self._tokens)
        if (part := self._writers.get(called)) is not None:
            self.answers[key(part)].width = linear_width(case)
        if (question := self._questions.get(called)) is None:
            return
        answer = self.answers[called]
        answer.mixes = mixes_tokens(case, tuple(question.call.given), question.returned)
        if not question.attends:
            return
        if question.writer is None:
            answer.heads_reason = "no single linear module writes its update"
            return
        written = cache(partial(self._written_with, case, question.writer.name))
        answer.heads, answer.heads_reason = separate_heads(written, attended)
        answer.gated = answer.heads is not None and gates_alone(written, self._read)

    def _written_with(self, case: Case, writer: str, head: int | None) -> Tensor:
        """What the writer takes, with one head of the attention changed."""
        self._changed_head = head
        try:
            case.again(case.given)
        finally:
            self._changed_head = None
        return self._written[writer]
