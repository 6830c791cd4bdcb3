"""Telling when a forward pass hands the stream from one block to the next."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from .stream import Stream
from .structure import tensors


@contextmanager
def boundaries(
    stream: Stream,
    passed: Callable[[Tensor], None],
    paused: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """While open, `h_0`, `h_1`, … are handed over as the model passes them.

    As in `capture`: `h_k` is the input of block `k + 1`, the last the output of the
    last block; with another module's input as `h_0`, `h_k` is the output of block `k`.

    Args:
        stream: Where the stream runs.
        passed: Takes each state.
        paused: Tells of calls of blocks that are not the model's own: they are skipped.
    """
    seen = 0

    def on_first(module: nn.Module, args: Any, kwargs: Any) -> None:
        nonlocal seen
        if seen == 0 and not paused():
            given = (t for _, t in tensors((args, kwargs)) if t.is_floating_point())
            passed(next(given))
            seen = 1

    def on_input(module: nn.Module, args: Any, kwargs: Any) -> None:
        nonlocal seen
        if not paused():
            passed(stream.taken(args, kwargs))
            seen += 1

    def on_output(module: nn.Module, args: Any, output: Any) -> None:
        last = stream.first is not None or seen == stream.n_layers
        if last and not paused():
            passed(stream.given(output))

    handles: list[Any] = []
    try:
        if stream.first is not None:
            handles.append(
                stream.first.register_forward_pre_hook(on_first, with_kwargs=True)
            )
        for block in dict.fromkeys(stream.blocks):
            if stream.first is None:
                handles.append(
                    block.register_forward_pre_hook(on_input, with_kwargs=True)
                )
            handles.append(block.register_forward_hook(on_output))
        yield
    finally:
        for handle in handles:
            handle.remove()
