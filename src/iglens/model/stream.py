"""The residual stream as it was found: which blocks, which tensors, which axes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .structure import Place, get, put


@dataclass(frozen=True, eq=False)
class Stream:
    """Where the residual stream runs.

    Attributes:
        container: Name of the module that holds the blocks.
        names: Names of the block calls, in order; a looped block appears again.
        blocks: The same, as modules.
        enter: Where the stream enters a block, in `(args, kwargs)`; several tensors
            are stacked.
        leave: Where it leaves a block's output, as many tensors.
        outputs: The recorded output of each block, a template for injection.
        batch_axis: Axis of texts.
        time_axis: Axis of tokens.
        prefix: Virtual tokens in front of the text.
        repeat: How often the text stands on the axis of tokens: streams side by side.
        chained: Whether the input of every block is the output of the one before.
        first: Module whose input is `h_0`, where it is not that of the first block;
            `h_k` is then the output of block `k`.
    """

    container: str
    names: tuple[str, ...]
    blocks: tuple[nn.Module, ...]
    enter: tuple[Place, ...]
    leave: tuple[Place, ...]
    outputs: tuple[object, ...]
    batch_axis: int
    time_axis: int
    prefix: int
    repeat: int
    chained: bool
    first: nn.Module | None = None

    @property
    def n_layers(self) -> int:
        """Number of block calls."""
        return len(self.blocks)

    @property
    def template(self) -> Tensor:
        """The stream as the last block gave it in the traced run."""
        return gather(self.outputs[-1], self.leave)

    @property
    def width(self) -> int:
        """Numbers per token."""
        shape = self.template.shape
        sizes = shape[self.batch_axis] * shape[self.time_axis]
        return self.template.numel() // sizes * self.repeat

    def to_rows(self, stream: Tensor) -> Float[Tensor, "texts text d_model"]:
        """The stream with texts and tokens in front, prefix cut, the rest flat."""
        return self.tokens_in_front(stream).flatten(2)

    def with_rows(self, stream: Tensor, text: int, rows: Tensor) -> Tensor:
        """A copy of the stream with other rows for one of its texts."""
        changed = stream.clone()
        view = self.tokens_in_front(changed)[text]
        view.copy_(rows.view(view.shape))
        return changed

    def tokens_in_front(self, stream: Tensor) -> Tensor:
        """A view of texts, tokens and what is left, without the prefix."""
        moved = stream.movedim((self.batch_axis, self.time_axis), (0, 1))
        if self.repeat > 1:
            moved = moved.unflatten(1, (self.repeat, -1)).transpose(1, 2)
        return moved[:, self.prefix :]

    def from_vectors(self, vectors: Float[Tensor, "points d_model"]) -> Tensor:
        """A stream of one-token texts, each holding one vector."""
        rest = [
            size
            for axis, size in enumerate(self.template.shape)
            if axis not in (self.batch_axis, self.time_axis)
        ]
        rows = vectors.reshape(len(vectors), self.repeat, *rest)
        if self.prefix:
            blank = rows.new_zeros(len(vectors), self.prefix, *rest)
            rows = torch.cat([blank, rows], 1)
        return rows.movedim((0, 1), (self.batch_axis, self.time_axis))

    def taken(self, args: Any, kwargs: Any) -> Tensor:
        """The stream among the arguments of a block."""
        return gather((args, kwargs), self.enter)

    def given(self, output: Any) -> Tensor:
        """The stream in a block's output."""
        return gather(output, self.leave)

    def put(self, output: Any, stream: Tensor) -> Any:
        """A block's output with another stream in it."""
        return scatter(output, self.leave, stream)


def gather(structure: Any, places: Sequence[Place]) -> Tensor:
    """The tensor at a place; several are stacked before their last axis."""
    found = [get(structure, place) for place in places]
    return found[0] if len(found) == 1 else torch.stack(found, -2)


def scatter(structure: Any, places: Sequence[Place], tensor: Tensor) -> Any:
    """A copy of the structure with a tensor, or its pieces, at these places."""
    pieces = [tensor] if len(places) == 1 else tensor.unbind(-2)
    for place, piece in zip(places, pieces, strict=True):
        structure = put(structure, place, piece)
    return structure
