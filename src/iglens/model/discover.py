"""Finding the residual stream by watching the model run, not by its names.

Two short forward passes of different shapes show which numbered modules are called in
order and handed on from one to the next (the blocks), which tensor that is (the
stream), and which of its axes are texts and tokens.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..errors import UnsupportedModelError
from .calls import Call, recorded_calls
from .declared import declared_first, declared_stack
from .runner import Runner, text_config
from .stream import Stream, gather
from .structure import Place, get, tensors

SHAPES = ((2, 8), (3, 11))
"""Texts and tokens of the two traced runs."""


Ends = tuple[tuple[Place, ...], tuple[Place, ...]]
"""Where a stream enters a block and where it leaves, one or several tensors."""


def find_streams(
    runner: Runner, blocks: str | None = None, start: str | None = None
) -> list[Stream]:
    """Candidates for the residual stream, the likeliest first.

    Args:
        runner: The model.
        blocks: Name of the module that holds the blocks, if it is known.
        start: Name of the module whose input is `h_0`, if it is not the first block.

    Raises:
        UnsupportedModelError: If no stack of blocks runs before the logits, or what
            is declared does not hold.
    """
    first, second = (_record(runner, shape) for shape in SHAPES)
    groups = _groups(runner.model, first)
    if blocks is not None:
        groups = declared_stack(blocks, groups, runner.model)
    tried: dict[str, str] = {}
    found: list[tuple[bool, int, Stream]] = []
    for container, calls in groups.items():
        linked = _linked_ends(calls)
        for ends in linked or _ends_by_shape(calls[-1]):
            stream = _stream(container, calls, second, ends)
            if isinstance(stream, str):
                tried[container] = stream
            else:
                found.append((bool(linked), first.index(calls[-1]), stream))
        if not linked and not _ends_by_shape(calls[-1]):
            tried[container] = "its members do not give a tensor as large as they take"
    if not found:
        raise UnsupportedModelError(
            f"No stack of layers found in {runner.name}: no group of numbered modules "
            f"runs before the logits and hands a stream on. Tried: {tried or 'none'}.",
            tried,
        )
    found.sort(key=lambda item: item[:2], reverse=True)
    streams = [stream for _, _, stream in found]
    if start is None:
        return streams
    return declared_first(start, streams, first, runner.model)


def _record(runner: Runner, shape: tuple[int, int]) -> list[Call]:
    """The module calls of a run on arbitrary tokens."""
    ids = arbitrary_tokens(runner.model, shape)
    with recorded_calls(
        (name, module) for name, module in runner.model.named_modules() if name
    ) as calls:
        runner(ids)
    return calls


def arbitrary_tokens(model: nn.Module, shape: tuple[int, int]) -> Tensor:
    """Token ids that are always the same, spread over the vocabulary.

    Special ids are left out: one may stand for an image that is not there.
    """
    special = _special_ids(getattr(model, "config", None))
    plain = [token for token in range(vocabulary(model)) if token not in special]
    plain = plain or [0]
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(0, len(plain), shape, generator=generator)
    return torch.tensor(plain)[chosen]


def vocabulary(model: nn.Module) -> int:
    """How many token ids there are, as the configuration says or embeddings show."""
    sizes = (m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding))
    return int(getattr(text_config(model), "vocab_size", None) or next(sizes, 32))


def _special_ids(config: object) -> set[int]:
    """Every id that a configuration, or one inside it, gives to a special token."""
    found: set[int] = set()
    for key, value in vars(config).items() if hasattr(config, "__dict__") else ():
        if re.search(r"token_(id|index)s?$", key):
            values = value if isinstance(value, list | tuple) else [value]
            found |= {token for token in values if isinstance(token, int)}
        elif key.endswith("_config"):
            found |= _special_ids(value)
    return found


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


def _stream(
    container: str, calls: list[Call], second: list[Call], ends: Ends
) -> Stream | str:
    """The stream through one stack of blocks, or why there is none."""
    enter, leave = ends
    calls = _without_ends(calls, enter[0], leave[0])
    for call in calls:
        if None in [
            *(_shape(call.args, place) for place in enter),
            *(_shape(call.output, place) for place in leave),
        ]:
            return "its members do not take and give tensors alike"
    names = tuple(call.name for call in calls)
    again = [call for call in second if call.name in set(names)]
    if len(again) != len(calls):
        return "it is called another number of times on other text"
    small, large = (gather(group[-1].output, leave) for group in (calls, again))
    axes = _axes(small.shape, large.shape)
    if axes is None:
        return f"no axes of texts and tokens in {tuple(small.shape)}"
    return Stream(
        container,
        names,
        tuple(call.module for call in calls),
        enter,
        leave,
        tuple(call.output for call in calls),
        *axes,
        all(_handed_on(a, b, ends) for a, b in pairwise(calls)),
    )


def _handed_on(call: Call, following: Call, ends: Ends) -> bool:
    """Whether the next block takes the very tensors that this one gives."""
    return all(
        get(call.output, leave) is get(following.args, enter)
        for enter, leave in zip(*ends, strict=True)
    )


def _linked_ends(calls: list[Call]) -> list[Ends]:
    """Where the stream enters and leaves: what one call gives and the next takes.

    If several tensors are handed on, each may be the stream, or all of them.
    """
    for call, following in pairwise(calls):
        given = {id(tensor) for tensor in call.input_tensors()}
        taken = {id(tensor): place for place, tensor in tensors(following.args)}
        links = [
            (taken[id(tensor)], leave)
            for leave, tensor in tensors(call.output)
            if id(tensor) in taken and id(tensor) not in given
        ]
        if links:
            return _alone_or_all(links, call)
    return []


def _alone_or_all(links: list[tuple[Place, Place]], call: Call) -> list[Ends]:
    """Each link as a stream of its own; all of the same shape as one."""
    alone: list[Ends] = [((enter,), (leave,)) for enter, leave in links]
    alike = {_shape(call.output, leave) for _, leave in links}
    if len(links) == 1 or len(alike) > 1:
        return alone
    return [*alone, (tuple(e for e, _ in links), tuple(leave for _, leave in links))]


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


def _ends_by_shape(call: Call) -> list[Ends]:
    """The same where nothing is handed on: an output of the shape of an input."""
    for leave, output in tensors(call.output):
        for enter, tensor in tensors(call.args):
            if output.is_floating_point() and output.shape == tensor.shape:
                return [((enter,), (leave,))]
    return []


def _axes(
    small: Sequence[int], large: Sequence[int]
) -> tuple[int, int, int, int] | None:
    """Axes of texts and tokens, length of the prefix, and how often the text stands.

    With a prefix the axis of tokens grows by as much as the text; a text that stands
    there several times makes it grow by as many times that.
    """
    if len(small) != len(large):
        return None
    (texts, length), (more_texts, longer) = SHAPES
    batch = time = None
    prefix, repeat = 0, 1
    for axis, (a, b) in enumerate(zip(small, large, strict=True)):
        if (a, b) == (texts, more_texts) and batch is None:
            batch = axis
        elif b - a == longer - length and a >= length:
            time, prefix, repeat = axis, a - length, 1
        elif a % length == 0 and a // length * longer == b:
            time, prefix, repeat = axis, 0, a // length
    if batch is None or time is None:
        return None
    return batch, time, prefix, repeat
