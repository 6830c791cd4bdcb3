"""Full forward passes in which some states are others: the truth about what reads what.

Everything runs, blocks included; only what they hand on is replaced. What the logits
then react to is what the rest of the model reads.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..readout.measure import gap
from .capture import states_of
from .runner import Runner
from .stream import Stream
from .structure import tensors


@contextmanager
def outputs_replaced(
    stream: Stream, vectors: Mapping[int, Float[Tensor, "*texts text d_model"]]
) -> Iterator[None]:
    """While open, some blocks run but give these vectors instead.

    Args:
        stream: Where the residual stream runs.
        vectors: What to give, for the one text or for each of several, by layer: 1 for
            the first block call.
    """
    calls = 0

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls not in vectors:
            return None
        changed, given = stream.given(output), vectors[calls]
        for text, rows in enumerate(given[None] if given.dim() == 2 else given):
            changed = stream.with_rows(changed, text, rows)
        return stream.put(output, changed)

    handles = [
        module.register_forward_hook(hook) for module in dict.fromkeys(stream.blocks)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def last_output_replaced(
    stream: Stream, vectors: Float[Tensor, "*texts text d_model"]
) -> Any:
    """While open, the last block runs but gives these vectors."""
    return outputs_replaced(stream, {stream.n_layers: vectors})


@contextmanager
def first_input_replaced(
    first: nn.Module, stream: Stream, vectors: Float[Tensor, "text d_model"]
) -> Iterator[None]:
    """While open, the tensor that a module takes first holds these vectors.

    It is overwritten where it lies: whoever else holds it sees the same.
    """
    calls = 0

    def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            given = (tensor for _, tensor in tensors((args, kwargs)))
            state = next(tensor for tensor in given if tensor.is_floating_point())
            state.copy_(stream.with_rows(state, 0, vectors))

    handle = first.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def misses_as_first(
    runner: Runner, stream: Stream, ids: Int[Tensor, "one text"], first: nn.Module
) -> float:
    """How far a declared `h_0` is from carrying the whole text.

    The states that a second text has there are put into the first text's run. If they
    are all that the model knows of a text, its distributions are the second text's.

    Returns:
        Gap between the two, at most.
    """
    other = ids.flip(1)
    [states] = states_of(runner, stream, [other[0]], (0,))
    expected = runner(other)[0]
    with first_input_replaced(first, stream, states[0]):
        given = runner(ids)[0].to(expected.device)
    return float(gap(given, expected, runner.measure).max())


def what_else_is_read(
    runner: Runner,
    stream: Stream,
    ids: Int[Tensor, "one text"],
    vectors: Float[Tensor, "text d_model"],
    tolerance: float,
) -> list[str]:
    """What the logits depend on besides the last block's vector at their own position.

    Every block is made to give fixed vectors, and one thing at a time is changed.

    Args:
        runner: The model.
        stream: Where its residual stream runs.
        ids: Token ids of a text.
        vectors: Vectors for its tokens, in directions of their own.
        tolerance: Gap that is only rounding.

    Returns:
        What was found, in words; empty if none of the trials moves the logits.
    """
    n_layers, middle = stream.n_layers, ids.shape[1] // 2
    fixed = {layer: vectors.roll(layer, -1) for layer in range(1, n_layers + 1)}

    def logits(tokens: Tensor, given: Mapping[int, Tensor]) -> Tensor:
        with outputs_replaced(stream, given):
            return runner(tokens)[0]

    own = logits(ids, fixed)

    def moves(tokens: Tensor, given: Mapping[int, Tensor], rows: Tensor) -> bool:
        moved = gap(logits(tokens, given)[rows], own[rows], runner.measure)
        return bool(moved.max() > tolerance)

    places = torch.arange(ids.shape[1])
    changed = places < places[-1] if runner.pooled else places == middle
    others = ~changed[-len(own) :]
    every = torch.ones_like(others)
    alike = {layer: state[:1].expand_as(state) for layer, state in fixed.items()}
    elsewhere = fixed[n_layers].clone()
    elsewhere[changed] = elsewhere[changed].flip(-1)
    found = []
    if moves(ids, fixed | {n_layers: elsewhere}, others):
        found.append("the last block's output at other positions")
    earlier = {layer: state.flip(-1) for layer, state in fixed.items()}
    earlier[n_layers] = fixed[n_layers]
    if n_layers > 1 and moves(ids, earlier, every):
        found += [
            f"the output of {stream.names[layer - 1]}"
            for layer in range(1, n_layers)
            if moves(ids, fixed | {layer: earlier[layer]}, every)
        ]
    if moves(ids.flip(1), fixed, every):
        found.append("the tokens, by another way than the blocks' outputs")
    along = logits(ids[:, :1].expand_as(ids), alike)
    if not found and len(own) > 1:
        moved = gap(along[1:], along[:-1], runner.measure)
        found += ["the place in the text"] if float(moved.max()) > tolerance else []
    return found
