"""Which module's output the values of an attention are, and the bias in them."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..calls import evaluating

_FAILURES = (RuntimeError, TypeError, ValueError, LookupError, AttributeError)
"""What a function may raise that is called out of its turn."""


@dataclass(eq=False)
class ValueSource:
    """Where values come from: as what view of which module's output.

    Attributes:
        module: The module.
        like: A row of what it took.
        shape: Shape of its output.
        view: Sizes, strides and offset of the values in it.
    """

    module: nn.Module
    like: Tensor
    shape: torch.Size
    view: tuple[torch.Size, tuple[int, ...], int]

    def bias(self) -> Float[Tensor, "groups head_width"] | None:
        """What values are where the module takes zero; None if that is no constant."""
        try:
            with evaluating(self.module):
                zero = self.module(torch.zeros_like(self.like))
        except _FAILURES:
            return None
        if not isinstance(zero, Tensor) or zero.shape[-1] != self.shape[-1]:
            return None
        constant = zero.flatten()[-self.shape[-1] :].expand(self.shape).contiguous()
        values = constant.as_strided(*self.view)
        first = values[:1, :, :1]
        return first[0, :, 0].clone() if bool((values == first).all()) else None


@dataclass(eq=False)
class Values:
    """Outputs of the modules of one attention, while it waits for being called."""

    outputs: list[tuple[nn.Module, Tensor, Tensor]] = field(default_factory=list)

    def add(self, module: nn.Module, args: Any, output: Any) -> None:
        """Remember what a module took and gave, if that may be values."""
        if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
            self.outputs.append((module, args[0], output))

    def source(self, value: Tensor) -> ValueSource | None:
        """The module whose output these values are a view of, or a copy (a cache's)."""
        for module, taken, output in self.outputs:
            if not output.is_contiguous():
                continue
            same = _in_order(output, value)
            if (
                output.untyped_storage().data_ptr()
                == value.untyped_storage().data_ptr()
            ):
                same = value
            if same is None:
                continue
            offset = int(same.storage_offset()) - int(output.storage_offset())
            view = (same.shape, tuple(same.stride()), offset)
            like = taken.flatten(0, -2)[:1].clone()
            return ValueSource(module, like, output.shape, view)
        return None


def _in_order(output: Tensor, value: Tensor) -> Tensor | None:
    """A view of an output as heads and their width, if it is the values."""
    n_texts, groups, tokens, width = value.shape
    if output.shape != (n_texts, tokens, groups * width):
        return None
    found = output.unflatten(-1, (groups, width)).transpose(1, 2)
    return found if torch.equal(found, value) else None
