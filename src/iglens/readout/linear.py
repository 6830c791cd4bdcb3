"""The fast readout: final norm, matrix product in blocks, post-processing."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import forward_ad

from .abstract import (
    AbstractProjection,
    AbstractReadout,
    LogitBlock,
    at_least_float32,
    dual_level,
)
from .product import product

Norm = Callable[[Tensor, torch.dtype], Tensor]
"""Final norm of some states, computed in the given dtype."""

Elementwise = Callable[[Tensor], Tensor]

_AT_ONCE = 512
"""States whose inner products are taken in float64 at once."""


def identity(values: Tensor) -> Tensor:
    """No post-processing."""
    return values


@dataclass(frozen=True, eq=False)
class LinearReadout(AbstractReadout):
    """`post(W norm(h) + b)`, with `W` read in blocks of the vocabulary.

    Equals `logits(states)`, the same operations at once, up to rounding.

    Attributes:
        norm: Everything between the last block and the head, in a given dtype.
        own_logits: Norm, head and post-processing as the model runs them.
        weights: The head's weight and bias, asked for anew at every reading so that
            a model whose weights have changed is read as it is now.
        post: Elementwise post-processing of logits, without casts.
    """

    norm: Norm
    own_logits: Callable[[Tensor], Tensor]
    weights: Callable[[], tuple[Tensor, Tensor | None]]
    d_model: int
    vocab_size: int
    dtype: torch.dtype
    precision: torch.dtype
    post: Elementwise = identity
    postprocess: str = "identity"
    kind: str = "explicit"

    @classmethod
    def plain(
        cls,
        norm: Callable[[Tensor], Tensor],
        unembed: Float[Tensor, "vocab d_model"],
        bias: Float[Tensor, " vocab"] | None = None,
        post: Elementwise = identity,
    ) -> "LinearReadout":
        """A readout from its mathematical parts, without a model.

        Example:
            >>> readout = LinearReadout.plain(norm=lambda h: h, unembed=torch.eye(3))
            >>> readout.logits(torch.ones(1, 3))
            tensor([[1., 1., 1.]])
        """

        def own_logits(states: Tensor) -> Tensor:
            normed = norm(states.to(unembed.dtype))
            return post(torch.nn.functional.linear(normed, unembed, bias))

        return cls(
            norm=lambda states, dtype: norm(states.to(dtype)),
            own_logits=own_logits,
            weights=lambda: (unembed, bias),
            d_model=unembed.shape[1],
            vocab_size=unembed.shape[0],
            dtype=unembed.dtype,
            precision=at_least_float32(unembed.dtype),
            post=post,
        )

    @torch.no_grad()
    def logits(
        self, states: Float[Tensor, "points d_model"]
    ) -> Float[Tensor, "points vocab"]:
        """What the model's tail gives, in its own dtype."""
        return self.own_logits(states)

    @torch.no_grad()
    def project(
        self,
        states: Float[Tensor, "points d_model"],
        directions: Float[Tensor, "points d_model"] | None = None,
    ) -> "LinearProjection":
        """Norm the states once; every block is then one matrix product."""
        if directions is None:
            normed = self.norm(states, self.precision)
            return LinearProjection(self, normed.to(self.precision), None)
        with dual_level():
            dual = forward_ad.make_dual(
                states.to(self.precision), directions.to(self.precision)
            )
            normed, change = forward_ad.unpack_dual(self.norm(dual, self.precision))
        assert change is not None  # a norm depends on its state
        return LinearProjection(self, normed.to(self.precision), change)

    def with_precision(self, precision: torch.dtype) -> "LinearReadout":
        """The same readout at another precision of its levels."""
        return replace(self, precision=precision)


@dataclass(frozen=True, eq=False)
class LinearProjection(AbstractProjection):
    """Normed states of a linear readout."""

    readout: LinearReadout
    normed: Float[Tensor, "points d_head"]
    change: Float[Tensor, "points d_head"] | None

    def blocks(self, width: int) -> Iterator[LogitBlock]:
        """Logits in blocks of `width` columns, in buffers that are used again."""
        points, dtype = len(self.normed), self.normed.dtype
        unembed, bias = self.readout.weights()
        vocab = self.readout.vocab_size
        buffer = self.normed.new_empty(points * min(width, vocab))
        second = None if self.change is None else torch.empty_like(buffer)
        for start in range(0, vocab, width):
            weight = unembed[start : start + width].to(dtype)
            shape = (points, len(weight))
            out = buffer[: points * len(weight)].view(shape)
            out = product(self.normed, weight, out)
            if bias is not None:
                out += bias[start : start + width].to(dtype)
            if self.change is None or second is None:
                yield LogitBlock(start, self.readout.post(out))
                continue
            slope = second[: points * len(weight)].view(shape)
            slope = product(self.change, weight, slope)
            yield LogitBlock(start, *_with_slope(self.readout.post, out, slope))

    def at(self, tokens: Int[Tensor, "points slots"]) -> Float[Tensor, "points slots"]:
        """Logits of single tokens: inner products in float64."""
        logits, _ = self._products(tokens)
        return self.readout.post(logits).masked_fill(tokens < 0, -torch.inf)

    def bounds(
        self, tokens: Int[Tensor, "points slots"], relative: float
    ) -> tuple[Float[Tensor, "points slots"], Float[Tensor, "points slots"]]:
        """Least and greatest logits of single tokens, in float64.

        If every term of the inner product, and the bias, is off by `relative` of its
        size; for a post-processing that is monotone. Ids below 0 give minus infinity.
        """
        logits, size = self._products(tokens, sized=True)
        slack = (relative * size).masked_fill(logits.isinf(), 0.0)
        ends = [self.readout.post(logits + sign * slack) for sign in (-1, 1)]
        low, high = (
            end.masked_fill(tokens < 0, -torch.inf)
            for end in (torch.minimum(*ends), torch.maximum(*ends))
        )
        return low, high

    def columns(self, tokens: Int[Tensor, " some"]) -> Float[Tensor, "points some"]:
        """Logits of some tokens at every point, in the readout's precision."""
        unembed, bias = self.readout.weights()
        weight = unembed[tokens].to(self.normed.dtype)
        logits = product(self.normed, weight)
        if bias is not None:
            logits += bias[tokens].to(self.normed.dtype)
        return self.readout.post(logits)

    def take(self, points: Int[Tensor, " some"]) -> "LinearProjection":
        """The same for some of the points, in the given order."""
        change = None if self.change is None else self.change[points]
        return replace(self, normed=self.normed[points], change=change)

    def _products(
        self, tokens: Int[Tensor, "points slots"], *, sized: bool = False
    ) -> tuple[Float[Tensor, "points slots"], Float[Tensor, "points slots"]]:
        """Inner products in float64, and if asked the sums of their terms' sizes."""
        logits = torch.empty(tokens.shape, dtype=torch.float64, device=tokens.device)
        size = torch.zeros_like(logits)
        for start in range(0, len(tokens), _AT_ONCE):
            points = slice(start, start + _AT_ONCE)
            normed = self.normed[points].double()
            for slot in range(tokens.shape[1]):
                known = tokens[points, slot].clamp(min=0)
                logits[points, slot] = self._product(
                    normed, known, size[points, slot] if sized else None
                )
        return logits, size

    def _product(
        self,
        normed: Float[Tensor, "some d_head"],
        tokens: Int[Tensor, " some"],
        size: Float[Tensor, " some"] | None,
    ) -> Float[Tensor, " some"]:
        """One inner product for each state; the sums of sizes are written, if asked."""
        unembed, bias = self.readout.weights()
        rows, inverse = tokens.unique(return_inverse=True)
        terms = unembed[rows].double()[inverse].mul_(normed)
        value = terms.sum(-1)
        offset = None if bias is None else bias[rows].double()[inverse]
        if offset is not None:
            value += offset
        if size is not None:
            size += terms.abs_().sum(-1)
            if offset is not None:
                size += offset.abs()
        return value


def _with_slope(
    post: Elementwise, logits: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor]:
    """Post-processed logits and their derivatives."""
    if post is identity:
        return logits, slope
    with dual_level():
        value, change = forward_ad.unpack_dual(
            post(forward_ad.make_dual(logits, slope))
        )
    return value, torch.zeros_like(value) if change is None else change
