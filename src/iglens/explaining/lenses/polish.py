"""Polishing a lens: the tuned-lens recipe, from where the ridge fit ends.

Every translator minimises the divergence of what it reads from the final distribution,
`KL(p_final || q_l)`, by stochastic gradient descent: Nesterov momentum, weight decay,
all gradients together clipped, the rate falling linearly to zero.

References:
    Belrose et al. (2023), Eliciting Latent Predictions from Transformers with the
    Tuned Lens, arXiv 2303.08112; the settings are those of its published code.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...errors import ArgumentError, NonFiniteError
from ...model.decoder import Decoder
from ...model.loading.child import Progress
from ...readout import MEMORY_BUDGET
from ...readout.lens import AffineLens, LensInfo
from .gradient import differentiable, divergence_gradient
from .scores import log_probabilities, rows_at_once
from .text import Piece


@dataclass(frozen=True)
class Polish:
    """How to polish.

    Attributes:
        steps: Steps of gradient descent.
        tokens: Tokens per step.
        rate: Size of the first step's update when the gradient's norm is 1, once the
            momentum has built up.
        momentum: Of Nesterov's method.
        weight_decay: Pull of every translator to the identity.
        clip: Largest norm of the gradient of all translators together.
        seed: Of the order of the text.
    """

    steps: int = 250
    tokens: int = 256
    rate: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 1e-3
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no recipe."""
        for name in ("steps", "tokens"):
            if getattr(self, name) < 1:
                raise ArgumentError(f"`{name}` of a polish must be at least 1.")


class Polisher:
    """A lens being polished; after `n` steps the same whatever came in between.

    Attributes:
        step: Steps taken.
        weight: `A_l` of every translator.
        bias: `b_l` of every translator.
        velocity: Momentum of both.
    """

    def __init__(self, decoder: Decoder, lens: AffineLens, recipe: Polish) -> None:
        """Start at a lens.

        Raises:
            UnsupportedModelError: If the model's head has no gradient.
        """
        self._decoder, self._recipe = decoder, recipe
        self._readout = differentiable(decoder.readout)
        self._layers = lens.layers
        unembed, _ = self._readout.weights()
        self.weight = lens.weight.to(unembed.device, self._readout.precision, copy=True)
        self.bias = lens.bias.to(self.weight, copy=True)
        self.velocity = torch.zeros_like(self.weight), torch.zeros_like(self.bias)
        self.step = 0

    def resume(self, step: int, velocity: tuple[Tensor, Tensor]) -> None:
        """Go on from where a polish was left, at the lens it was left at."""
        self.step = step
        self.velocity = (
            velocity[0].to(self.weight, copy=True),
            velocity[1].to(self.bias, copy=True),
        )

    def run(
        self,
        pieces: Sequence[Piece],
        progress: Progress,
        after_step: Callable[[], None] | None = None,
    ) -> None:
        """Take the steps that are left.

        Args:
            pieces: The text, the same at every call.
            progress: Told how far it is.
            after_step: Called after every step; may save the state.

        Raises:
            NonFiniteError: If it diverges.
        """
        recipe = self._recipe
        plan = schedule([len(piece) for piece in pieces], recipe)
        while self.step < recipe.steps:
            loss, gradients = self._gradients([pieces[i] for i in plan[self.step]])
            self._descend(gradients)
            self.step += 1
            if not math.isfinite(loss):
                raise NonFiniteError(
                    f"Polishing diverged at step {self.step}. Start from a larger "
                    "`ridge`, or give more tokens per step."
                )
            progress("polishing", self.step, recipe.steps)
            if after_step is not None:
                after_step()

    def lens(self, fitted: AffineLens, info: LensInfo) -> AffineLens:
        """The polished lens, in place of the one it came from."""
        weight, bias = self.weight.float().cpu(), self.bias.float().cpu()
        return replace(fitted, name="polished", weight=weight, bias=bias, info=info)

    @torch.no_grad()
    def _gradients(self, pieces: Sequence[Piece]) -> tuple[float, tuple[Tensor, ...]]:
        """Mean divergence over tokens, summed over layers, and its gradient."""
        states = self._decoder.states(
            pieces, layers=[*self._layers, self._decoder.n_layers]
        )
        rows = torch.cat([found[:, 1:] for found in states], 1)
        rows = rows[:, self._picked(rows.shape[1]).to(rows.device)]
        count, total = rows.shape[1], 0.0
        of_weight, of_bias = torch.zeros_like(self.weight), torch.zeros_like(self.bias)
        for some in rows.split(rows_at_once(self._readout, MEMORY_BUDGET), dim=1):
            final = log_probabilities(self._readout, some[-1])
            for at, x in enumerate(some[:-1].to(self.weight)):
                translated = x + x @ self.weight[at].T + self.bias[at]
                loss, slope = divergence_gradient(self._readout, translated, final)
                total += loss
                of_weight[at].addmm_(slope.T, x)
                of_bias[at] += slope.sum(0)
        return total / count, (of_weight.div_(count), of_bias.div_(count))

    def _picked(self, available: int) -> Tensor:
        """Tokens of one step, drawn by its number alone."""
        source = torch.Generator().manual_seed(
            self._recipe.seed * 1_000_003 + self.step
        )
        order = torch.randperm(available, generator=source)
        return order[: self._recipe.tokens].sort().values

    @torch.no_grad()
    def _descend(self, gradients: tuple[Tensor, ...]) -> None:
        """One step: clip, decay, momentum."""
        recipe = self._recipe
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        shrink = (recipe.clip / (norm + 1e-6)).clamp(max=1.0)
        left = 1 - self.step / recipe.steps
        rate = (1 - recipe.momentum) * recipe.rate * left
        values = self.weight, self.bias
        for value, velocity, gradient in zip(
            values, self.velocity, gradients, strict=True
        ):
            gradient.mul_(shrink).add_(value, alpha=recipe.weight_decay)
            velocity.mul_(recipe.momentum).add_(gradient)
            value.sub_(gradient.add_(velocity, alpha=recipe.momentum), alpha=rate)


def schedule(lengths: Sequence[int], recipe: Polish) -> list[list[int]]:
    """Pieces of every step: the text in a new order again and again.

    A step takes pieces until they hold enough tokens, which the last may exceed.
    """
    stream = _endless(len(lengths), recipe.seed)
    plan = []
    for _ in range(recipe.steps):
        taken: list[int] = []
        while sum(lengths[i] - 1 for i in taken) < recipe.tokens:
            taken.append(next(stream))
        plan.append(taken)
    return plan


def _endless(count: int, seed: int) -> Iterator[int]:
    """All numbers below `count` in a random order, then in another, and so on."""
    shuffler = random.Random(seed)
    while True:
        yield from shuffler.sample(range(count), count)
