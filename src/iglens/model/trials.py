"""What modules do, tried out on what they were given.

Do they mix tokens, is what writes linear, has each head its own place? Everything is
tried inside one forward pass: when a module returns, it is called again on copies of
its arguments in which one thing is changed.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache

from .attention import intercepted_attention
from .boundaries import boundaries
from .dataflow import ModuleCall
from .runner import Runner
from .stream import Stream
from .structure import Place, get, put, tensors

Key = tuple[int, str, int]
"""Layer number of a block, name of a module, number of its call within the block."""

_FAILURES = (RuntimeError, TypeError, ValueError, LookupError, AttributeError)
"""What a module may raise that is called out of its turn."""


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
    """

    mixes: bool | None = None
    width: int | None = None
    heads: int | None = None
    heads_reason: str | None = None


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
            given = _frozen((args, kwargs))
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

        def again(changed: Any) -> Any:
            args, kwargs = _frozen(changed)
            return module(*args, **kwargs)

        if (part := self._writers.get(called)) is not None:
            self.answers[key(part)].width = self._width(again, given, output)
        if (question := self._questions.get(called)) is None:
            return
        answer = self.answers[called]
        answer.mixes = self._mixes(again, given, output, question)
        if question.attends:
            heads = self._heads(again, given, question, attended)
            answer.heads = heads if isinstance(heads, int) else None
            answer.heads_reason = heads if isinstance(heads, str) else None

    def _mixes(
        self, again: Callable[..., Any], given: Any, output: Any, question: Question
    ) -> bool | None:
        """Whether another first token changes what later ones get."""
        changed = given
        for place in question.call.given:
            tensor = get(given, place)
            if (axis := self._token_axis(tensor)) is None:
                continue
            first, second = tensor.select(axis, 0), tensor.select(axis, 1)
            other = tensor.clone()
            other.select(axis, 0).copy_(second - 2 * first)
            changed = put(changed, place, other)
        try:
            same, moved = again(given), again(changed)
        except _FAILURES:
            return None
        found = None
        for place in question.returned:
            before = get(output, place)
            if (axis := self._token_axis(before)) is None:
                continue
            if _differ(get(same, place), before):
                return None
            later = [
                tensor.narrow(axis, 1, self._tokens - 1)
                for tensor in (before, get(moved, place))
            ]
            found = bool(found) or _differ(*later)
        return found

    def _width(self, again: Callable[..., Any], given: Any, output: Any) -> int | None:
        """Width of what a module takes that maps each token alone and linearly."""
        (place, taken), *more = [
            (place, tensor)
            for place, tensor in tensors(given)
            if tensor.is_floating_point()
        ]
        axis = self._token_axis(taken)
        if more or axis is None or not isinstance(output, Tensor):
            return None
        if taken.numel() != taken.shape[-1] * self._tokens:
            return None
        try:
            offset = again(put(given, place, torch.zeros_like(taken)))
            mixed = again(put(given, place, 2 * taken + taken.flip(axis)))
        except _FAILURES:
            return None
        update = output - offset
        expected = 2 * update + update.flip(axis) + offset
        return None if _differ(mixed, expected, steps=8) else taken.shape[-1]

    def _heads(
        self,
        again: Callable[..., Any],
        given: Any,
        question: Question,
        attended: list[tuple[int, ...]],
    ) -> int | str:
        """Number of heads that have their own pieces, or why they have not."""
        if not attended:
            return "its attention does not run through Transformers' AttentionInterface"
        if len(attended) > 1:
            return f"it attends {len(attended)} times"
        if question.writer is None:
            return "no single linear module writes its update"
        heads, name = attended[0][2], question.writer.name
        pieces = []
        for head in (None, 0, heads - 1):
            self._changed_head = head
            try:
                again(given)
            except _FAILURES as error:
                return f"it cannot be run again alone ({type(error).__name__})"
            finally:
                self._changed_head = None
            taken = self._written[name]
            if taken.shape[-1] != heads * attended[0][3]:
                return (
                    f"its writer takes {taken.shape[-1]} numbers per token, which are "
                    f"not {heads} heads of {attended[0][3]}"
                )
            pieces.append(taken.unflatten(-1, (heads, -1)))
        for head, moved in zip((0, heads - 1), pieces[1:], strict=True):
            others = [h for h in range(heads) if h != head]
            if not _differ(moved[..., head, :], pieces[0][..., head, :]) or _differ(
                moved[..., others, :], pieces[0][..., others, :]
            ):
                return "what stands between the heads and its writer mixes them"
        return heads

    def _token_axis(self, tensor: Any) -> int | None:
        """The axis of tokens of a tensor of one text."""
        shape = tensor.shape if isinstance(tensor, Tensor) else ()
        return next((a for a, size in enumerate(shape) if size == self._tokens), None)


def _frozen(structure: Any) -> Any:
    """A copy of arguments that calling with them does not change, caches included."""
    if isinstance(structure, Tensor):
        return structure.clone()
    if isinstance(structure, Cache):
        return copy.deepcopy(structure)
    if isinstance(structure, dict):
        return {name: _frozen(item) for name, item in structure.items()}
    if type(structure) in (tuple, list):
        return type(structure)(_frozen(item) for item in structure)
    return structure


def _differ(one: Tensor, other: Tensor, *, steps: int = 1) -> bool:
    """Whether two results differ by more than rounding, in the root mean square.

    In half precision by more than `steps` steps of the dtype: one for numbers that are
    equal but for the order of sums, more for those computed in another way. Sums of
    many products round by more than one step in the wider dtypes.
    """
    if one.shape != other.shape:
        return True
    if one.dtype in (torch.float32, torch.float64):
        steps = 64
    gap, size = ((one - other).double(), other.double())
    least = steps * torch.finfo(one.dtype).eps
    return bool(gap.square().sum() > least**2 * size.square().sum())
