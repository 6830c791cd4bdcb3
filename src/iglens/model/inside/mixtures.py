"""Taking what mixtures of experts are given, and running chosen experts again."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..calls import evaluating
from ..structure import Place, get, put, tensors

Rows = Callable[[Tensor], list[Tensor] | str]
"""The wanted places of a tensor with numbers for each token, per text."""


@dataclass(eq=False)
class MixtureCall:
    """What one call of a mixture left, at the wanted places of each text.

    Attributes:
        model: The model, whose configuration says how experts are run.
        module: The mixture.
        given: Its arguments, `(args, kwargs)`, with those of the wanted places.
        weights: Where the router's weights are among them.
        ids: Where the ids of the chosen experts are.
        output: What it gave.
    """

    model: nn.Module
    module: nn.Module
    given: list[Any]
    weights: Place
    ids: Place
    output: list[Tensor]

    def slots(self, text: int) -> tuple[Tensor, Tensor]:
        """Ids and weights of one text, (rows, slots)."""
        given = self.given[text]
        return get(given, self.ids).flatten(0, -2), self._weights(text).flatten(0, -2)

    def _weights(self, text: int) -> Tensor:
        """The router's weights, in the shape in which they are taken."""
        found: Tensor = get(self.given[text], self.weights)
        return found

    @torch.no_grad()
    def run(self, text: int, slot: int, rows: slice = slice(None)) -> Tensor:
        """What one slot gives at some rows: the mixture, with no weight on others."""
        given = self.given[text]
        for place in (place for place, _ in tensors(given)):
            given = put(given, place, get(given, place)[..., rows, :])
        weights = get(given, self.weights)
        alone = torch.zeros_like(weights)
        alone[..., slot] = weights[..., slot]
        args, kwargs = put(given, self.weights, alone)
        with evaluating(self.model):
            found: Tensor = self.module(*args, **kwargs)
        return found.flatten(0, -2)

    def adds_up(self, text: int) -> bool:
        """Whether the slots together give what the mixture gave in the pass."""
        output = self.output[text].double()
        total = torch.zeros_like(output)
        n_slots = self._weights(text).shape[-1]
        size = torch.linalg.vector_norm(output, dim=1)
        for slot in range(n_slots):
            try:
                given = self.run(text, slot).double()
            except (RuntimeError, TypeError, ValueError, LookupError):
                return False
            total = total + given
            size = size + torch.linalg.vector_norm(given, dim=1)
        eps = torch.finfo(self.output[text].dtype).eps
        steps = 4 if self.output[text].dtype.itemsize < 4 else 64
        missed = torch.linalg.vector_norm(output - total, dim=1)
        return bool((missed <= steps * eps * size).all())


def taken_mixture(
    model: nn.Module, module: nn.Module, given: Any, rows: Rows
) -> MixtureCall | str:
    """What is kept of a call that begins, or why nothing is.

    Args:
        model: The model.
        module: The mixture.
        given: Its arguments, `(args, kwargs)`.
        rows: Takes the wanted places.
    """
    every = dict(tensors(given))
    ids = [place for place, t in every.items() if not t.is_floating_point()]
    floats = [place for place in every if place not in ids]
    if len(ids) != 1 or len(floats) != 2:
        return "its experts are not given one vector, ids and weights for each token"
    shape = every[ids[0]].shape
    weights = [place for place in floats if every[place].shape == shape]
    if len(weights) != 1:
        return "its experts are not given as many weights as ids"
    kept: list[Any] = []
    for place, tensor in every.items():
        found = rows(tensor)
        if isinstance(found, str):
            return found
        kept = kept or [given for _ in found]
        lead = (1,) * (tensor.dim() - 2)
        kept = [
            put(one, place, some.reshape(*lead, *some.shape))
            for one, some in zip(kept, found, strict=True)
        ]
    return MixtureCall(model, module, kept, weights[0], ids[0], [])
