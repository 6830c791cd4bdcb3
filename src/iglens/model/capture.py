"""Taking residual states during one forward pass: only the positions that are wanted.

Hooks sit on the blocks alone. `h_k` is the *input* of block `k + 1` (what the rest of
the network sees), `h_L` the output of the last block. Where another module's input is
declared to be `h_0`, `h_k` is the output of block `k`.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import ArgumentError, UnsupportedModelError
from ..stages import stage
from .injected import model_lock
from .picked import keep_argument, kept_places
from .runner import Runner
from .stream import Stream
from .structure import tensors

Take = Callable[[int, Float[Tensor, "texts text d_model"]], None]
"""What a layer's states are handed to."""

Pass = Callable[[Tensor, Tensor, Take], Float[Tensor, "texts kept vocab"]]
"""Logits of some texts at the kept places, every wanted layer's states handed over."""

WIDTHS = 24
"""Vectors as wide as the stream that a forward pass holds per token, about: the MLP's
hidden layer is some four to eight of them, and queries, keys, values and norms come on
top."""

_PIECE = 512
"""States that are summed in float64 at once."""

_HELD = 1.1
"""Times their own size that logits may keep in memory, to spare a copy of them."""


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
    """States as they come in, of several texts of one batch, each in its place."""

    lengths: Sequence[int]
    places: Sequence[Tensor]
    layers: Sequence[int]
    states: dict[int, Tensor] = field(default_factory=dict)
    means: dict[int, Tensor] = field(default_factory=dict)
    causal_means: dict[int, Tensor] = field(default_factory=dict)
    passed: set[int] = field(default_factory=set)
    device: torch.device | None = None

    def take(self, layer: int, streams: Float[Tensor, "texts text d_model"]) -> None:
        """Keep the wanted places of one layer's states, and the texts' means."""
        self.passed.add(layer)
        self.device = streams.device
        for text, length in enumerate(self.lengths):
            rows = streams[text, :length]
            places = self.places[text].to(rows.device)
            self._put(self.states, text, layer, rows[places])
            mean = rows.mean(0, dtype=torch.float64)
            self._put(self.means, text, layer, mean.to(rows.dtype))
            if layer == 0:
                self.causal_means[text] = _causal_means(rows, places)

    def _put(
        self, kept: dict[int, Tensor], text: int, layer: int, values: Tensor
    ) -> None:
        """Put what is of one layer where it belongs among the others."""
        if text not in kept:
            kept[text] = values.new_empty((len(self.layers), *values.shape))
        wide = torch.promote_types(kept[text].dtype, values.dtype)
        kept[text] = kept[text].to(wide)
        kept[text][list(self.layers).index(layer)] = values


def _causal_means(
    rows: Float[Tensor, "text d_model"], places: Int[Tensor, " rows"]
) -> Float[Tensor, "rows d_model"]:
    """Mean of the states up to each place, summed in float64 piece by piece."""
    means = rows.new_empty((len(places), rows.shape[1]))
    total = rows.new_zeros(rows.shape[1], dtype=torch.float64)
    for start in range(0, len(rows), _PIECE):
        sums = rows[start : start + _PIECE].cumsum(0, dtype=torch.float64) + total
        here = ((places >= start) & (places < start + _PIECE)).nonzero().flatten()
        at = places[here]
        means[here] = (sums[at - start] / (at[:, None] + 1)).to(means.dtype)
        total = sums[-1]
    return means


def capture(
    runner: Runner,
    stream: Stream,
    ids: Int[Tensor, "one text"],
    places: Int[Tensor, " rows"],
    layers: Sequence[int],
) -> Captured:
    """States and logits at some places of one text; see `capture_batch`."""
    return capture_batch(runner, stream, [ids[0]], [places], layers)[0]


def capture_batch(
    runner: Runner,
    stream: Stream,
    texts: Sequence[Int[Tensor, " _"]],
    places: Sequence[Int[Tensor, " _"]],
    layers: Sequence[int],
    run: Pass | None = None,
) -> list[Captured]:
    """States and logits at some places of several texts, in one forward pass.

    Shorter texts are filled up on the right. No token sees a later one, so the
    filling changes nothing in front of it, and the positions are right as they are.
    A pooled model has logits for one place of each text alone, where it reads.

    Args:
        runner: The model.
        stream: Where its residual stream runs.
        texts: Token ids of every text.
        places: Indices of the tokens whose states are wanted, per text, ascending.
        layers: Layers whose states are wanted, 0 and the last among them.
        run: How the model is run; None for whole texts at once.

    Raises:
        UnsupportedModelError: If the model no longer runs the blocks it had.
    """
    lengths = [len(text) for text in texts]
    taken = _Taken(lengths, places, layers)

    def whole(ids: Tensor, kept: Tensor, take: Take) -> Tensor:
        """All texts from their first tokens on."""
        with passing(stream, frozenset(layers), take):
            keep = keep_argument(kept, ids.shape[1])
            return runner(ids, keep=keep, lengths=lengths)

    ids = torch.stack([_filled(text, max(lengths)) for text in texts])
    with model_lock(runner.model):
        kept = kept_places(runner, ids, places)
        logits = (run or whole)(ids, kept, taken.take)
    _check_passed(runner, layers, taken.passed)
    rows = [
        own if runner.pooled else _rows(own, torch.searchsorted(kept, wanted))
        for own, wanted in zip(logits, places, strict=True)
    ]
    return [_captured(taken, index, row) for index, row in enumerate(rows)]


def _rows(logits: Float[Tensor, "kept vocab"], rows: Int[Tensor, " rows"]) -> Tensor:
    """Some rows of logits, ascending; not copied where they follow each other."""
    first, last = int(rows[0]), int(rows[-1])
    if last - first + 1 == len(rows):
        return logits[first : last + 1]
    return logits[rows.to(logits.device)]


def _alone(logits: Tensor) -> Tensor:
    """The logits, copied only if they would keep many others in memory."""
    held = logits.untyped_storage().nbytes()
    return logits if held <= _HELD * logits.nbytes else logits.clone()


@stage("forward")
def states_of(
    runner: Runner,
    stream: Stream,
    texts: Sequence[Int[Tensor, " _"]],
    layers: Sequence[int],
) -> list[Float[Tensor, "points _ d_model"]]:
    """States of every token of several texts, in one forward pass.

    Of the logits only the last token's are computed where the model can do that.

    Args:
        runner: The model.
        stream: Where its residual stream runs.
        texts: Token ids of every text.
        layers: Layers whose states are wanted, in that order.

    Raises:
        ArgumentError: If there is no such layer.
        UnsupportedModelError: If the model no longer runs the blocks it had.
    """
    if not layers or min(layers) < 0 or max(layers) > stream.n_layers:
        raise ArgumentError(
            f"`layers` is {list(layers)}; {runner.name} has 0 to {stream.n_layers}."
        )
    lengths = [len(text) for text in texts]
    ids = torch.stack([_filled(text, max(lengths)) for text in texts])
    taken: dict[int, Tensor] = {}

    def take(layer: int, streams: Tensor) -> None:
        taken[layer] = streams.clone()

    with model_lock(runner.model), passing(stream, frozenset(layers), take):
        runner(ids, keep=1, lengths=lengths)
    _check_passed(runner, layers, taken)
    device = taken[layers[-1]].device
    return [
        torch.stack([taken[layer][index, :length].to(device) for layer in layers])
        for index, length in enumerate(lengths)
    ]


def _check_passed(
    runner: Runner, layers: Sequence[int], taken: Collection[int]
) -> None:
    """Refuse a model that ran without passing some of its layers."""
    if lost := sorted(set(layers) - set(taken)):
        raise UnsupportedModelError(
            f"{runner.name} ran without passing layers {lost}: its blocks are others "
            "than when it was verified. Make a new `Decoder` of it."
        )


def _filled(text: Int[Tensor, " text"], length: int) -> Int[Tensor, " filled"]:
    """The text, its last token repeated until it has a length."""
    return torch.cat([text, text[-1:].repeat(length - len(text))])


def _captured(taken: _Taken, text: int, logits: Tensor) -> Captured:
    """What was taken of one text, on the device of its last states."""
    return Captured(
        taken.states.pop(text).to(taken.device),
        taken.means.pop(text).to(taken.device),
        taken.causal_means.pop(text).to(taken.device),
        _alone(logits).to(taken.device),
    )


@contextmanager
def passing(
    stream: Stream,
    layers: frozenset[int],
    take: Take,
) -> Iterator[None]:
    """While open, every wanted layer's states are handed over."""
    calls = 0

    def on_first(module: nn.Module, args: Any, kwargs: Any) -> None:
        if calls == 0:
            tensor = next(
                t for _, t in tensors((args, kwargs)) if t.is_floating_point()
            )
            take(0, stream.to_rows(tensor))

    def on_input(module: nn.Module, args: Any, kwargs: Any) -> None:
        nonlocal calls
        if calls in layers and stream.first is None:
            take(calls, stream.to_rows(stream.taken(args, kwargs)))
        calls += 1

    def on_output(module: nn.Module, args: Any, output: Any) -> None:
        last = calls == stream.n_layers
        if last or (stream.first is not None and calls in layers):
            take(calls, stream.to_rows(stream.given(output)))

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
