"""Taking residual states during one forward pass: only the positions that are wanted.

Hooks sit on the blocks alone. `h_k` is the *input* of block `k + 1` (what the rest of
the network sees), `h_L` the output of the last block. Where another module's input is
declared to be `h_0`, `h_k` is the output of block `k`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import UnsupportedModelError
from .injected import model_lock
from .runner import Runner
from .stream import Stream
from .structure import tensors


@dataclass(frozen=True, eq=False)
class Captured:
    """What one forward pass left.

    Attributes:
        states: States at the wanted places, in the order of the wanted layers.
        means: Mean state over the text, per wanted layer.
        causal_mean: Mean of the embedding states up to each wanted place.
        logits: The model's logits at the wanted places.
    """

    states: Float[Tensor, "points rows d_model"]
    means: Float[Tensor, "points d_model"]
    causal_mean: Float[Tensor, "rows d_model"]
    logits: Float[Tensor, "rows vocab"]


@dataclass(eq=False)
class _Taken:
    """States as they come in."""

    places: Tensor
    states: dict[int, Tensor] = field(default_factory=dict)
    means: dict[int, Tensor] = field(default_factory=dict)
    causal_mean: Tensor | None = None

    def take(self, layer: int, rows: Float[Tensor, "text d_model"]) -> None:
        """Keep the wanted places of one layer's states, and its mean."""
        places = self.places.to(rows.device)
        self.states[layer] = rows[places].clone()
        self.means[layer] = rows.mean(0, dtype=torch.float64).to(rows.dtype)
        if layer == 0:
            sums = rows.cumsum(0, dtype=torch.float64)[places]
            self.causal_mean = (sums / (places[:, None] + 1)).to(rows.dtype)


def capture(
    runner: Runner,
    stream: Stream,
    ids: Int[Tensor, "texts text"],
    places: Int[Tensor, " rows"],
    layers: Sequence[int],
) -> Captured:
    """States and logits at some places of one text, in one forward pass.

    Args:
        runner: The model.
        stream: Where its residual stream runs.
        ids: Token ids of one text.
        places: Indices of the tokens whose states are wanted, ascending.
        layers: Layers whose states are wanted, 0 and the last among them.

    Raises:
        UnsupportedModelError: If the model no longer runs the blocks it had.
    """
    taken = _Taken(places)
    keep = ids.shape[1] - int(places.min())
    with model_lock(runner.model), _hooks(stream, frozenset(layers), taken.take):
        logits = runner(ids, keep=keep)[0]
    if lost := sorted(set(layers) - set(taken.states)):
        raise UnsupportedModelError(
            f"{runner.name} ran without passing layers {lost}: its blocks are others "
            "than when it was verified. Make a new `Decoder` of it."
        )
    device = taken.states[stream.n_layers].device
    rows = logits[(places - places.min()).to(logits.device)]
    assert taken.causal_mean is not None  # layer 0 is always wanted
    return Captured(
        torch.stack([taken.states[layer].to(device) for layer in layers]),
        torch.stack([taken.means[layer].to(device) for layer in layers]),
        taken.causal_mean.to(device),
        rows.clone().to(device),
    )


@contextmanager
def _hooks(
    stream: Stream,
    layers: frozenset[int],
    take: Callable[[int, Tensor], None],
) -> Iterator[None]:
    """While open, every wanted layer's states of the first text are handed over."""
    calls = 0

    def on_first(module: nn.Module, args: Any, kwargs: Any) -> None:
        if calls == 0:
            tensor = next(
                t for _, t in tensors((args, kwargs)) if t.is_floating_point()
            )
            take(0, stream.to_rows(tensor)[0])

    def on_input(module: nn.Module, args: Any, kwargs: Any) -> None:
        nonlocal calls
        if calls in layers and stream.first is None:
            take(calls, stream.to_rows(stream.taken(args, kwargs))[0])
        calls += 1

    def on_output(module: nn.Module, args: Any, output: Any) -> None:
        last = calls == stream.n_layers
        if last or (stream.first is not None and calls in layers):
            take(calls, stream.to_rows(stream.given(output))[0])

    handles = []
    try:
        if stream.first is not None:
            handles.append(
                stream.first.register_forward_pre_hook(on_first, with_kwargs=True)
            )
        for module in dict.fromkeys(stream.blocks):
            handles.append(module.register_forward_pre_hook(on_input, with_kwargs=True))
            handles.append(module.register_forward_hook(on_output))
        yield
    finally:
        for handle in handles:
            handle.remove()
