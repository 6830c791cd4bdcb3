"""The operations between the last block and the logits, from one traced run.

The tail is recovered as a chain: from the vector that the last block gives, through
modules (the final norm, the head) and elementwise operations with plain numbers (a
scale, a soft-cap, a cast), to the logits. No module or operation is recognised by its
name; a tail that is no such chain is left to the injected readout.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import UnsupportedModelError
from .calls import Call, recorded_calls
from .injected import short_circuited
from .runner import Runner
from .stream import Stream
from .structure import tensors

VECTORS = 3
"""Vectors in the traced run."""


@dataclass(frozen=True, eq=False)
class Operation:
    """An elementwise operation with plain numbers.

    Attributes:
        function: The operator, in its out-of-place form.
        before: Arguments in front of the tensor.
        after: Arguments behind it.
        keywords: Keyword arguments.
        is_cast: Whether it changes the dtype and nothing else.
    """

    function: Callable[..., Tensor]
    before: tuple[Any, ...]
    after: tuple[Any, ...]
    keywords: dict[str, Any]
    is_cast: bool

    def __call__(self, values: Tensor) -> Tensor:
        """Apply it."""
        return self.function(*self.before, values, *self.after, **self.keywords)


Step = nn.Module | Operation


@dataclass(frozen=True, eq=False)
class Tail:
    """What happens to a vector after the last block.

    Attributes:
        before: Steps up to the head: the final norm, usually.
        head: The module that gives one number per token.
        after: Elementwise operations on these.
    """

    before: tuple[Step, ...]
    head: nn.Module
    after: tuple[Operation, ...]

    @property
    def postprocess(self) -> str:
        """The operations after the head, in words."""
        return describe(self.after)


def describe(operations: tuple[Operation, ...]) -> str:
    """Elementwise operations in words: "identity", "scale 0.5", "softcap 30", …."""
    steps = [step for step in operations if not step.is_cast]
    names = [_name(step) for step in steps]
    if not steps:
        return "identity"
    if names == ["div", "tanh", "mul"] and steps[0].after == steps[2].after:
        return f"softcap {steps[0].after[0]:g}"
    if names == ["mul"] and not steps[0].before:
        return f"scale {steps[0].after[0]:g}"
    if names == ["div"] and not steps[0].before:
        return f"scale {1 / steps[0].after[0]:g}"
    return " ".join(
        "".join([name, *(f" {number:g}" for number in (*step.before, *step.after))])
        for name, step in zip(names, steps, strict=True)
    )


def _name(operation: Operation) -> str:
    """Short name of its operator."""
    return str(getattr(operation.function, "__name__", "?"))


def trace_tail(runner: Runner, stream: Stream) -> Tail | None:
    """The tail as a chain of modules and elementwise operations, if it is one."""
    seeded = torch.Generator().manual_seed(0)  # of the CPU: other devices lack one
    vectors = torch.randn(VECTORS, stream.width, generator=seeded).to(stream.template)
    inner = {module for block in stream.blocks for module in block.modules()}
    outside = [
        (name, module)
        for name, module in runner.model.named_modules()
        if name and module not in inner
    ]
    log = _OperationLog()
    # virtual tokens in front of the text pass through the tail as well
    kept = stream.prefix + 1 if stream.prefix else None
    with (
        short_circuited(runner.model, stream, vectors),
        recorded_calls(outside, copies=True) as calls,
        log,
    ):
        try:
            logits = runner(runner.dummies(VECTORS), keep=kept)
        except UnsupportedModelError:  # their logits are cut off on the way
            return None
    start = stream.from_vectors(vectors)
    vocab = logits.shape[-1]
    heads = [call for call in calls if _is_head(call, vocab)]
    chains = (_chain(start, head, logits, calls, log) for head in heads)
    return next((tail for tail in chains if tail is not None), None)


def _is_head(call: Call, vocab: int) -> bool:
    """Whether a call takes one float tensor and gives one number per token."""
    given = [tensor for tensor in call.input_tensors() if tensor.is_floating_point()]
    return (
        len(given) == 1
        and isinstance(call.output, Tensor)
        and call.output.shape[-1] == vocab
    )


def _chain(
    vectors: Tensor, head: Call, logits: Tensor, calls: list[Call], log: "_OperationLog"
) -> Tail | None:
    """Steps from the vectors to the head, and from there to the logits."""
    aim = next(tensor for tensor in head.input_tensors() if tensor.is_floating_point())
    modules = [
        call
        for call in calls
        if call not in head.inside and call is not head and head not in call.inside
    ]
    before = _walk(vectors, aim, modules, log)
    after = _walk(head.output, logits, [], log)
    if before is None or after is None:
        return None
    return Tail(
        tuple(before),
        head.module,
        tuple(step for step in after if isinstance(step, Operation)),
    )


def _walk(
    start: Tensor, aim: Tensor, modules: list[Call], log: "_OperationLog"
) -> list[Step] | None:
    """Steps that lead from one tensor to another, or None.

    Two tensors count as the same where they hold equal numbers: views and copies of
    a tensor are steps that do nothing.
    """
    steps: list[Step] = []
    current, since = start, 0
    for _ in range(64):
        if _same(current, aim):
            return steps
        call = next((c for c in modules if _takes(c, current)), None)
        if call is not None:
            steps.append(call.module)
            modules = [c for c in modules if c is not call and call not in c.inside]
            current = call.output
            continue
        found = log.next_operation(current, since)
        if found is None:
            return None
        operation, current, since = found
        steps.append(operation)
    return None


def _takes(call: Call, tensor: Tensor) -> bool:
    """Whether a call maps this tensor, and no other, to one tensor."""
    given = [item for item in call.input_tensors() if item.is_floating_point()]
    return (
        len(given) == 1
        and isinstance(call.output, Tensor)
        and _same(given[0], tensor)
        and not _same(call.output, tensor)
    )


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same numbers, in the same dtype and order.

    They may lie on different devices: some modules run elsewhere.
    """
    return (
        one.dtype == other.dtype
        and one.numel() == other.numel()
        and torch.equal(one.flatten(), other.flatten().to(one.device))
    )


class _OperationLog(TorchDispatchMode):
    """Every operator call with copies of its tensors, since models work in place."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._entries: list[tuple[Any, tuple[Any, ...], dict[str, Any], Tensor]] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        found = list(tensors((args, kwargs)))
        entry = None
        if len(found) == 1 and _is_plain_float(args, found[0][1]):
            entry = tuple(a.clone() if isinstance(a, Tensor) else a for a in args)
        output = func(*args, **kwargs)
        if entry is not None and isinstance(output, Tensor):
            self._entries.append((func, entry, kwargs, output.clone()))
        return output

    def next_operation(
        self, tensor: Tensor, since: int
    ) -> tuple[Operation, Tensor, int] | None:
        """The first elementwise operation on a tensor that changes it."""
        for index in range(since, len(self._entries)):
            func, args, kwargs, output = self._entries[index]
            place = next(i for i, a in enumerate(args) if isinstance(a, Tensor))
            if output.shape != args[place].shape or not _same(args[place], tensor):
                continue
            if _same(output, tensor):
                continue
            is_cast = output.dtype != tensor.dtype
            operation = Operation(
                _out_of_place(func), args[:place], args[place + 1 :], kwargs, is_cast
            )
            if _is_elementwise(operation, tensor, output):
                return operation, output, index + 1
        return None


def _is_plain_float(args: tuple[Any, ...], tensor: Tensor) -> bool:
    """Whether a tensor of real numbers is an argument itself, not part of a list."""
    return tensor.is_floating_point() and any(a is tensor for a in args)


def _out_of_place(func: Any) -> Callable[..., Tensor]:
    """The operator that gives a new tensor instead of overwriting its input."""
    name = func._schema.name.split("::")[1].rstrip("_") or func.__name__
    name = "_to_copy" if name == "to_copy" else name
    return getattr(torch.ops.aten, name)


def _is_elementwise(operation: Operation, values: Tensor, output: Tensor) -> bool:
    """Whether each number maps to one number, wherever it stands."""
    try:
        flipped = operation(values.flatten().flip(0))
        halves = operation(values.flatten()[::2])
    except (RuntimeError, TypeError, IndexError):
        return False
    expected = output.flatten()
    return _same(flipped, expected.flip(0)) and _same(halves, expected[::2])
