"""The model run on scaled token embeddings, with gradients in the states of all layers.

What integrates along the path of *inputs* needs this: every point of such a path is a
forward pass of its own, and a pass back through the model.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import UnsupportedModelError
from .calls import evaluating
from .decoder import Decoder
from .injected import model_lock
from .structure import get, put

Level = Callable[[Tensor], Tensor]
"""A number from one row of float64 logits, `(vocab,)` to `()`, in torch operations."""


@dataclass(frozen=True, eq=False)
class Passed:
    """One pass forwards and back.

    Attributes:
        scale: What the embeddings were multiplied with.
        value: The level.
        states: The whole residual stream of every layer, 0 to the last: all tokens, in
            as many tensors as it consists of.
        gradients: Derivatives of the level in them.
    """

    scale: float
    value: float
    states: tuple[tuple[Tensor, ...], ...]
    gradients: tuple[tuple[Tensor, ...], ...]


class ScaledInputs:
    """A text whose token embeddings are scaled.

    Raises:
        UnsupportedModelError: If there is no embedding that could be scaled.
    """

    def __init__(self, decoder: Decoder, ids: Sequence[int], level: Level) -> None:
        """Take the model, the tokens before the predicted one, and what is read."""
        self._runner, self._stream = decoder._runner, decoder.verified.stream
        self._ids, self._level = torch.tensor([list(ids)]), level
        get_embedding = getattr(decoder.model, "get_input_embeddings", lambda: None)
        self._embedding: Any = get_embedding()
        if self._runner.pooled or self._stream.first is not None:
            raise UnsupportedModelError(
                f"{self._runner.name} cannot be run on scaled embeddings here: it is "
                "no plain chain of blocks from embeddings to a next token."
            )
        if not isinstance(self._embedding, nn.Module):
            raise UnsupportedModelError(
                f"{self._runner.name} does not say what embeds its tokens "
                "(`get_input_embeddings`), so its inputs cannot be scaled."
            )

    def at(self, scale: float) -> Passed:
        """The level with all token embeddings times `scale`, and its derivatives.

        Raises:
            UnsupportedModelError: If the embedding is not what the model runs on.
        """
        held: list[tuple[Tensor, ...]] = []
        model = self._runner.model
        with model_lock(model), evaluating(model), torch.enable_grad():
            with self._scaled(scale), self._watched(held):
                output = model(**self._runner._arguments(self._ids, None))
            logits = output[0] if isinstance(output, tuple) else output["logits"]
            value = self._level(logits[0, -1].double())
            flat = [tensor for layer in held for tensor in layer]
            if not (value.requires_grad and len(flat)):
                raise UnsupportedModelError(
                    f"{self._runner.name} gives no gradient in its token embeddings."
                )
            found = torch.autograd.grad(
                value, flat, allow_unused=True, materialize_grads=True
            )
        slopes = iter(found)
        gradients = tuple(tuple(next(slopes) for _ in layer) for layer in held)
        states = tuple(tuple(tensor.detach() for tensor in layer) for layer in held)
        return Passed(scale, float(value.detach()), states, gradients)

    @contextmanager
    def _scaled(self, scale: float) -> Iterator[None]:
        """While open, embeddings come out scaled, as leaves of the graph."""

        def scaled(module: nn.Module, args: Any, output: Any) -> Tensor:
            if not isinstance(output, Tensor):
                raise UnsupportedModelError(
                    f"The embedding of {self._runner.name} gives no tensor."
                )
            return (output.detach() * scale).requires_grad_()

        handle = self._embedding.register_forward_hook(scaled)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def _watched(self, held: list[tuple[Tensor, ...]]) -> Iterator[None]:
        """While open, the stream is kept where it enters blocks, and at its end.

        Blocks get copies: models add in place.
        """
        stream, handles = self._stream, []

        def on_input(module: nn.Module, args: Any, kwargs: Any) -> Any:
            given = (args, kwargs)
            held.append(tuple(get(given, place).clone() for place in stream.enter))
            for place, tensor in zip(stream.enter, held[-1], strict=True):
                given = put(given, place, tensor.clone())
            return given

        def on_output(module: nn.Module, args: Any, output: Any) -> Any:
            if len(held) < stream.n_layers:
                return None
            held.append(tuple(get(output, place).clone() for place in stream.leave))
            for place, tensor in zip(stream.leave, held[-1], strict=True):
                output = put(output, place, tensor.clone())
            return output

        try:
            for block in dict.fromkeys(stream.blocks):
                handles.append(
                    block.register_forward_pre_hook(on_input, with_kwargs=True)
                )
                handles.append(block.register_forward_hook(on_output))
            yield
        finally:
            for handle in handles:
                handle.remove()


def inner(
    one: Sequence[Float[Tensor, "..."]], other: Sequence[Float[Tensor, "..."]]
) -> float:
    """Inner product over everything a state consists of, in float64."""
    pairs = zip(one, other, strict=True)
    return sum(float((a.double() * b.double()).sum()) for a, b in pairs)
