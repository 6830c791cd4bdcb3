"""Finding the residual stream by watching the model run, not by its names.

Two short forward passes of different shapes show which numbered modules are called in
order and handed on from one to the next (the blocks), which tensor that is (the
stream), and which of its axes are texts and tokens.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import UnsupportedModelError
from .calls import Call, recorded_calls
from .runner import Runner, text_config
from .structure import Place, get, put, tensors

SHAPES = ((2, 8), (3, 11))
"""Texts and tokens of the two traced runs."""


@dataclass(frozen=True, eq=False)
class Stream:
    """Where the residual stream runs.

    Attributes:
        container: Name of the module that holds the blocks.
        names: Names of the block calls, in order; a looped block appears again.
        blocks: The same, as modules.
        enter: Where the stream enters a block, in `(args, kwargs)`.
        leave: Where it leaves a block's output.
        outputs: The recorded output of each block, a template for injection.
        batch_axis: Axis of texts.
        time_axis: Axis of tokens.
        prefix: Virtual tokens in front of the text.
        chained: Whether the input of every block is the output of the one before.
    """

    container: str
    names: tuple[str, ...]
    blocks: tuple[nn.Module, ...]
    enter: Place
    leave: Place
    outputs: tuple[object, ...]
    batch_axis: int
    time_axis: int
    prefix: int
    chained: bool

    @property
    def n_layers(self) -> int:
        """Number of block calls."""
        return len(self.blocks)

    @property
    def template(self) -> Tensor:
        """The stream as the last block gave it in the traced run."""
        tensor = get(self.outputs[-1], self.leave)
        assert isinstance(tensor, Tensor)  # found as one
        return tensor

    @property
    def width(self) -> int:
        """Numbers per token."""
        shape = self.template.shape
        return self.template.numel() // (shape[self.batch_axis] * shape[self.time_axis])

    def to_rows(self, stream: Tensor) -> Float[Tensor, "texts text d_model"]:
        """The stream with texts and tokens in front, prefix cut, the rest flat."""
        moved = stream.movedim((self.batch_axis, self.time_axis), (0, 1))
        return moved.flatten(2)[:, self.prefix :]

    def from_vectors(self, vectors: Float[Tensor, "points d_model"]) -> Tensor:
        """A stream of one-token texts, each holding one vector."""
        rest = [
            size
            for axis, size in enumerate(self.template.shape)
            if axis not in (self.batch_axis, self.time_axis)
        ]
        rows = vectors.reshape(len(vectors), 1, *rest)
        if self.prefix:
            blank = rows.new_zeros(len(vectors), self.prefix, *rest)
            rows = torch.cat([blank, rows], 1)
        return rows.movedim((0, 1), (self.batch_axis, self.time_axis))


def find_streams(runner: Runner, blocks: str | None = None) -> list[Stream]:
    """Candidates for the residual stream, the likeliest first.

    Args:
        runner: The model.
        blocks: Name of the module that holds the blocks, if it is known.

    Raises:
        UnsupportedModelError: If no stack of blocks runs before the logits.
    """
    first, second = (_record(runner, shape) for shape in SHAPES)
    groups = _groups(runner.model, first)
    if blocks is not None:
        groups = {key: calls for key, calls in groups.items() if key == blocks}
    tried: dict[str, str] = {}
    found: list[tuple[bool, int, Stream]] = []
    for container, calls in groups.items():
        stream = _stream(container, calls, second)
        if isinstance(stream, str):
            tried[container] = stream
        else:
            linked = _linked_ends(calls) is not None
            found.append((linked, first.index(calls[-1]), stream))
    if not found:
        raise UnsupportedModelError(
            f"No stack of layers found in {runner.name}: no group of numbered modules "
            f"runs before the logits and hands a stream on. Tried: {tried or 'none'}."
        )
    found.sort(key=lambda item: item[:2], reverse=True)
    return [stream for _, _, stream in found]


def _record(runner: Runner, shape: tuple[int, int]) -> list[Call]:
    """The module calls of a run on arbitrary tokens."""
    ids = arbitrary_tokens(runner.model, shape)
    with recorded_calls(
        (name, module) for name, module in runner.model.named_modules() if name
    ) as calls:
        runner(ids)
    return calls


def arbitrary_tokens(model: nn.Module, shape: tuple[int, int]) -> Tensor:
    """Token ids that are always the same, spread over the vocabulary."""
    sizes = (m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding))
    size = getattr(text_config(model), "vocab_size", None) or next(sizes, 32)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, int(size), shape, generator=generator)


def _groups(model: nn.Module, calls: Sequence[Call]) -> dict[str, list[Call]]:
    """Calls of numbered siblings, by the name of their container; outermost only."""
    groups: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        parent, _, last = call.name.rpartition(".")
        if match := re.fullmatch(r"(.*?)_?(\d+)", last):
            stem = match[1]
            groups[f"{parent}.{stem}".strip(".") if stem else parent].append(call)
    members = {id(call) for group in groups.values() for call in group}
    return {
        key: group
        for key, group in groups.items()
        if not any(id(outer) in members for call in group for outer in call.inside)
    }


def _stream(container: str, calls: list[Call], second: list[Call]) -> Stream | str:
    """The stream through one stack of blocks, or why there is none."""
    ends = _linked_ends(calls) or _ends_by_shape(calls[-1])
    if ends is None:
        return "its members do not give a tensor as large as they take"
    enter, leave = ends
    calls = _without_ends(calls, enter, leave)
    places = [(_shape(call.args, enter), _shape(call.output, leave)) for call in calls]
    if None in chain.from_iterable(places):
        return "its members do not take and give tensors alike"
    names = tuple(call.name for call in calls)
    again = [call for call in second if call.name in set(names)]
    if len(again) != len(calls):
        return "it is called another number of times on other text"
    small, large = (get(group[-1].output, leave) for group in (calls, again))
    axes = _axes(small.shape, large.shape)
    if axes is None:
        return f"no axes of texts and tokens in {tuple(small.shape)}"
    chained = all(
        get(a.output, leave) is get(b.args, enter) for a, b in pairwise(calls)
    )
    return Stream(
        container,
        names,
        tuple(call.module for call in calls),
        enter,
        leave,
        tuple(call.output for call in calls),
        *axes,
        chained,
    )


def _linked_ends(calls: list[Call]) -> tuple[Place, Place] | None:
    """Where the stream enters and leaves: what one call gives and the next takes."""
    for call, following in pairwise(calls):
        given = {id(tensor) for tensor in call.input_tensors()}
        taken = {id(tensor): place for place, tensor in tensors(following.args)}
        for leave, tensor in tensors(call.output):
            if id(tensor) in taken and id(tensor) not in given:
                return taken[id(tensor)], leave
    return None


def _without_ends(calls: list[Call], enter: Place, leave: Place) -> list[Call]:
    """The calls without what stands beside the blocks in one numbered row.

    An embedding in front or a head behind gives a tensor of another shape than it
    takes.
    """
    keeps = [_shape(call.args, enter) == _shape(call.output, leave) for call in calls]
    if True not in keeps:
        return calls
    last = len(keeps) - keeps[::-1].index(True)
    return calls[keeps.index(True) : last]


def _shape(structure: object, place: Place) -> tuple[Sequence[int], torch.dtype] | None:
    """Shape and dtype of the tensor at a place, if there is one."""
    found = dict(tensors(structure)).get(place)
    return None if found is None else (found.shape, found.dtype)


def _ends_by_shape(call: Call) -> tuple[Place, Place] | None:
    """The same where nothing is handed on: an output of the shape of an input."""
    for leave, output in tensors(call.output):
        for enter, tensor in tensors(call.args):
            if output.is_floating_point() and output.shape == tensor.shape:
                return enter, leave
    return None


def _axes(small: Sequence[int], large: Sequence[int]) -> tuple[int, int, int] | None:
    """Axes of texts and tokens, and the length of the prefix."""
    if len(small) != len(large):
        return None
    (texts, length), (more_texts, longer) = SHAPES
    batch = time = None
    for axis, (a, b) in enumerate(zip(small, large, strict=True)):
        if (a, b) == (texts, more_texts) and batch is None:
            batch = axis
        elif b - a == longer - length and a >= length:
            time = axis
    if batch is None or time is None:
        return None
    return batch, time, small[time] - length


def stubbed(stream: Stream, index: int, replacement: Tensor) -> object:
    """The recorded output of a block with another stream in its place."""
    return put(stream.outputs[index], stream.leave, replacement)


def stream_inputs(stream: Stream) -> Iterator[tuple[int, nn.Module]]:
    """Block calls by index, for hooks."""
    yield from enumerate(stream.blocks)
