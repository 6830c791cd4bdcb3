r"""How far a lens is from the final distribution, from streamed states.

With `p` the final distribution at a token and `q` what the lens reads at a layer:

    kl_bits      mean of KL(p || q), in bits
    bias_bits    KL of the mean p to the mean q, in bits: what the lens gets wrong even
                 on average, such as tokens that it always names too often
    agreement    share of tokens whose most probable token is the final one's
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...readout import MEMORY_BUDGET, AbstractReadout
from ...readout.lens import AbstractLens

_COPIES = 6
"""Rows of logits that are alive at once per state being read."""


@dataclass(frozen=True)
class LensScores:
    """What a lens gets right on some tokens.

    Attributes:
        kl_bits: Mean divergence of the final distribution from each layer's, in bits.
        kl_error: Standard error of that mean, documents taken as independent; NaN for
            a single document.
        bias_bits: Divergence of the mean final distribution from the mean one of each
            layer, in bits. Never above `kl_bits`, and equal to it for one token: it
            takes many tokens to tell bias from chance.
        agreement: Share of tokens whose most probable token is the final one.
    """

    kl_bits: Float[np.ndarray, " layers"]
    kl_error: Float[np.ndarray, " layers"]
    bias_bits: Float[np.ndarray, " layers"]
    agreement: Float[np.ndarray, " layers"]


class Tally:
    """Running scores of one lens; holds a number per layer and token of the vocabulary.

    Means of probabilities are added as logarithms: what a layer gives a token may lie
    hundreds of nats below what a float can hold.
    """

    def __init__(self, lens: AbstractLens, layers: Sequence[int]) -> None:
        """Start with no tokens."""
        self._lens, self._layers = lens, list(layers)
        self._kl: dict[int, Tensor] = {}
        self._sizes: dict[int, int] = {}
        self._agreed = torch.zeros(len(self._layers), dtype=torch.float64)
        self._sums: Tensor | None = None

    @torch.no_grad()
    def add(
        self,
        readout: AbstractReadout,
        states: Float[Tensor, "layers rows d_model"],
        final: Float[Tensor, "rows vocab"],
        document: int,
    ) -> None:
        """Take in some tokens of one document.

        Args:
            readout: The model's head.
            states: Of the layers, before any translation.
            final: Log-probabilities of the last layer.
            document: Its number, by which the standard error groups tokens.
        """
        best, found = final.argmax(1), torch.zeros(len(self._layers)).double()
        if self._sums is None:
            shape = len(self._layers), final.shape[1]
            self._sums = final.new_full(shape, -torch.inf, dtype=torch.float64)
        for at, layer in enumerate(self._layers):
            translated = self._lens.translate(states[at : at + 1], [layer])[0]
            ours = log_probabilities(readout, translated)
            found[at] = divergence(final, ours).sum()
            self._agreed[at] += int((ours.argmax(1) == best).sum())
            self._sums[at] = torch.logaddexp(self._sums[at], log_sum(ours))
        self._kl[document] = self._kl.get(document, 0) + found
        self._sizes[document] = self._sizes.get(document, 0) + len(final)

    def scores(self, final: Float[Tensor, " vocab"]) -> LensScores:
        """The scores so far.

        Args:
            final: Logarithm of the *sum* of the final probabilities.
        """
        assert self._sums is not None  # something was added
        sums = torch.stack(list(self._kl.values()))
        sizes = torch.tensor(list(self._sizes.values())).double()
        tokens, bit = int(sizes.sum()), math.log(2)
        mean = sums.sum(0) / tokens
        shift = math.log(tokens)
        means = self._sums - shift
        bias = divergence((final - shift).expand_as(means), means).cpu()
        return LensScores(
            kl_bits=(mean / bit).numpy(),
            kl_error=(_clustered_error(sums, sizes) / bit).numpy(),
            bias_bits=(bias / bit).numpy(),
            agreement=(self._agreed / tokens).numpy(),
        )


def _clustered_error(sums: Tensor, sizes: Tensor) -> Tensor:
    """Standard error of a mean over tokens that come in whole documents."""
    count, tokens = len(sizes), sizes.sum()
    if count < 2:
        return torch.full_like(sums[0], torch.nan)
    apart = sums - sizes[:, None] * (sums.sum(0) / tokens)
    return (apart.square().sum(0) * count / (count - 1)).sqrt() / tokens


@torch.no_grad()
def log_probabilities(
    readout: AbstractReadout, states: Float[Tensor, "rows d_model"]
) -> Float[Tensor, "rows vocab"]:
    """Whole rows of log-probabilities, in the readout's precision."""
    blocks = readout.project(states).blocks(readout.vocab_size)
    return torch.cat([block.logits for block in blocks], 1).log_softmax(1)


def log_sum(rows: Float[Tensor, "rows vocab"]) -> Float[Tensor, " vocab"]:
    """Logarithm of the summed probabilities, in float64."""
    return rows.logsumexp(0).double()


def divergence(
    p: Float[Tensor, "rows vocab"], q: Float[Tensor, "rows vocab"]
) -> Float[Tensor, " rows"]:
    """`KL(p || q)` of log-probabilities, in nats; impossible tokens add nothing."""
    terms = p.exp() * (p - q)
    return terms.masked_fill(p == -torch.inf, 0.0).sum(-1, dtype=torch.float64)


def rows_at_once(readout: AbstractReadout, memory_budget: int = MEMORY_BUDGET) -> int:
    """How many states may be read in whole rows of logits within a budget."""
    row = readout.vocab_size * readout.precision.itemsize * _COPIES
    return max(1, memory_budget // row)


def spread(length: int, count: int) -> Int[Tensor, " chosen"]:
    """Indices of `count` of `length` things, evenly spaced; all if there are fewer."""
    if count >= length:
        return torch.arange(length)
    return torch.linspace(0, length - 1, count).round().long()
