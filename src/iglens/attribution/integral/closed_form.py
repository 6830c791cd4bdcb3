r"""The gradient along a segment in closed form, node by node, without a matrix product.

Behind a norm `beta + G C h / r(h)` the logits of `h(t) = h + t D` are

    z(t) = post((u_0 + t u_1) / r(t) + b'),      u_0 = W G C h,   u_1 = W G C D,

with `b' = b + W beta`: any number of nodes needs the two products once. And with
`s = post'(z) dF/dz` at each node the gradient of `F` is

    C G^T W^T s / r - a C h(t),        a = <s, u_0 + t u_1> / (d r^3),

so its average needs one product with `W^T`, of `int s / r dt`, however many nodes.
The wanted tokens are kept apart and computed in float64, as in a streamed reading.
"""

from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import forward_ad

from ...readout import LinearReadout, TokenLogits
from ...readout.abstract import dual_level
from ...readout.linear import Elementwise, identity
from ...readout.scaled_norm import ScaledNorm
from .lines import Lines
from .quadrature import NODES, AbstractIntegrand, Look, Moments, Panels
from .unembedded import Unembedding
from .wanted import Wanted

PROBES = 8
"""Random directions that the distance of two gradients is estimated by."""

_COPIES = 8
"""Rows of logits that a node takes where they are post-processed."""


class ClosedForm(AbstractIntegrand):
    """The gradient of a level behind a scaled norm and a linear head.

    `u_0` and `u_1` are kept in the readout's precision; what is computed from them at a
    node is float64. In float32 two rules would differ by rounding before they agreed to
    1e-6 on a gradient that is multiplied with a long step.
    """

    precision = torch.float64

    def __init__(
        self,
        readout: LinearReadout,
        norm: ScaledNorm,
        starts: Float[Tensor, "segments d_model"],
        steps: Float[Tensor, "segments d_model"],
        wanted: Wanted,
        memory_budget: int,
    ) -> None:
        """Send the ends through the head; see `segments_within` for what it takes."""
        self.readout, self.wanted = readout, wanted
        self.lines = Lines(starts, steps, norm)
        self._head = Unembedding(readout, memory_budget // 4)
        self._rows = max(1, _rows_within(readout, memory_budget // 4))
        self.at_once = max(1, self._rows // (len(NODES) + 2))
        ends = torch.stack([starts, steps], 1)
        self._linear = norm.linear(ends)
        seeded = torch.Generator().manual_seed(0)
        self._directions = torch.randn(PROBES, starts.shape[1], generator=seeded).to(
            starts
        )
        rows = [self._linear.flatten(0, 1), norm.linear(self._directions)]
        shifted = bool((norm.offset != 0).any())
        rows += [norm.offset[None]] if shifted else []
        products = self._head.out(torch.cat(rows))
        count = 2 * len(starts)
        self._raw = products[:count].unflatten(0, (-1, 2))
        self._probes = products[count : count + PROBES]
        bias = readout.weights()[1]
        self._bias = products[-1].double() if shifted else None
        if bias is not None:
            self._bias = bias.double() if self._bias is None else self._bias + bias

    @cached_property
    def _slots(self) -> tuple[Tensor, Tensor, Tensor]:
        """The wanted tokens' `u_0` and `u_1`, biases, and products with the probes."""
        tokens, norm = self.wanted.tokens, self.lines.norm
        offset = norm.offset.expand(len(tokens), 1, -1)
        bias = self._head.out_at(offset, tokens)[:, 0] + self._head.bias_at(tokens)
        probes = norm.linear(self._directions).expand(len(tokens), -1, -1)
        return (
            self._head.out_at(self._linear, tokens),
            bias,
            self._head.out_at(probes, tokens),
        )

    def cuts(self) -> list[list[float]]:
        """Where the norm's scale has changed too much."""
        return self.lines.cuts()

    def zeros(self) -> Moments:
        """Nothing yet: for all other tokens, for the wanted ones, and for the scale."""
        n, slots = self.wanted.tokens.shape
        double = self.lines.starts.new_zeros
        rest = torch.zeros_like(self._raw)
        return rest, double(n, 2, slots), double(n, 2, 2)

    @torch.no_grad()
    def values(
        self, segment: Int[Tensor, " points"], places: Float[Tensor, " points"]
    ) -> Float[Tensor, "points scalars"]:
        """The watched scalars at some places."""
        turns = zip(
            segment.split(self._rows), places[:, None].split(self._rows), strict=True
        )
        return torch.cat([_Nodes(self, s, t).scalars()[0][:, 0] for s, t in turns])

    @torch.no_grad()
    def look(self, panels: Panels) -> Look:
        """Read all nodes of some panels, a few nodes at a time if memory is short."""
        step = min(max(1, self._rows // len(panels)), len(NODES))
        values: list[Tensor] = []
        slopes: list[Tensor] = []
        moments: Moments | None = None
        turns = zip(
            panels.places.split(step, 1), panels.weights.split(step, 2), strict=True
        )
        for places, weights in turns:
            nodes = _Nodes(self, panels.segment, places)
            for found, piece in zip((values, slopes), nodes.scalars(), strict=True):
                found.append(piece)
            new = nodes.moments(weights)
            if moments is None:
                moments = new
            else:
                for total, more in zip(moments, new, strict=True):
                    total += more
        assert moments is not None  # there is a node
        apart = self._apart(panels.segment, moments)
        exact = torch.zeros_like(apart)
        return Look(torch.cat(values, 1), torch.cat(slopes, 1), moments, apart, exact)

    def _apart(
        self, segment: Int[Tensor, " panels"], moments: Moments
    ) -> Float[Tensor, " panels"]:
        """Length of the gradients' difference, from its products with random vectors.

        A standard normal vector's product with any vector has the squared length as
        its mean square.
        """
        rest, slots, turn = (moment[:, 1] for moment in moments)
        along = (rest.to(self._probes) @ self._probes.T).double()
        along += (self._slots[2][segment] @ slots[:, :, None])[:, :, 0]
        back = self.lines.centred[segment] @ self._directions.T
        along -= (turn[:, None] @ back)[:, 0]
        return along.square().mean(1).sqrt()

    @torch.no_grad()
    def gradients(self, moments: Moments) -> Float[Tensor, "segments two d_model"]:
        """One product with the head's transpose for all segments."""
        rest, slots, turn = moments
        logits = self._head.back(rest.flatten(0, 1)).unflatten(0, (-1, 2))
        logits += self._head.back_at(slots, self.wanted.tokens)
        return self.lines.norm.transposed(logits) - turn @ self.lines.centred


class _Nodes:
    """The logits at some nodes of some panels."""

    def __init__(
        self,
        form: ClosedForm,
        segment: Int[Tensor, " panels"],
        places: Float[Tensor, "panels nodes"],
    ) -> None:
        """Read the nodes."""
        self._form, self._segment, self._places = form, segment, places
        self._scale = form.lines.scale(segment, places)
        self._wanted = form.wanted.at(segment)
        self._read_rest()
        self._read_slots()
        repeats = torch.arange(len(segment), device=segment.device)
        found = TokenLogits(
            self._logits.flatten(0, 1), self._rest.flatten(), self._rest.flatten()
        )
        each = self._wanted.at(repeats.repeat_interleave(places.shape[1]))
        self._weighed = each.weigh(found)

    def _read_rest(self) -> None:
        """Exponentials of all other logits, their sum, and means of `u_0` and `u_1`."""
        form, scale, post = self._form, self._scale, self._form.readout.post
        factors = torch.stack([1 / scale, self._places / scale], -1)
        raw = [form._raw[i].double() for i in self._segment.tolist()]
        logits = factors.new_empty(*scale.shape, form.readout.vocab_size)
        for row, factor, ends in zip(logits, factors, raw, strict=True):
            if form._bias is None:
                torch.mm(factor, ends, out=row)
            else:
                torch.addmm(form._bias, factor, ends, out=row)
        logits, change = _with_derivative(post, logits)
        apart = self._wanted.apart[:, None].expand(-1, scale.shape[1], -1)
        logits = logits.scatter_(2, apart, -torch.inf)
        top = logits.amax(2, keepdim=True)
        top = top.masked_fill(top == -torch.inf, 0.0)
        weight = logits.sub_(top).clamp_(min=-700.0).exp_().scatter_(2, apart, 0.0)
        self._total = weight.sum(2)
        self._rest = top[:, :, 0] + self._total.log()
        self._weight = weight if change is None else weight.mul_(change)
        sums = [w @ ends.T for w, ends in zip(self._weight, raw, strict=True)]
        self._means = torch.stack(sums) / self._total[..., None].clamp(min=1e-300)

    def _read_slots(self) -> None:
        """Logits of the wanted tokens, and the linear map before scale and bias."""
        raw, bias = (part[self._segment] for part in self._form._slots[:2])
        places, scale = self._places[..., None], self._scale[..., None]
        self._step = raw[:, None, 1].expand(-1, places.shape[1], -1)
        self._at = raw[:, None, 0] + places * self._step
        logits, change = _with_derivative(
            self._form.readout.post, self._at / scale + bias[:, None]
        )
        self._change = torch.ones_like(logits) if change is None else change
        unused = self._wanted.tokens[:, None] < 0
        self._logits = logits.masked_fill(unused, -torch.inf)

    def scalars(self) -> tuple[Tensor, Tensor]:
        """The watched scalars and their slopes, each panels x nodes x scalars."""
        scale = self._scale
        turn = self._form.lines.growth(self._segment, self._places) / scale**3
        first, step = self._means.unbind(-1)
        rest = step / scale - (first + self._places * step) * turn
        slots = self._step / scale[..., None] - self._at * turn[..., None]
        changes = TokenLogits(
            (self._change * slots).flatten(0, 1), rest.flatten(), rest.flatten()
        )
        values = [weighed.value for weighed in self._weighed]
        slopes = [weighed.slope(changes) for weighed in self._weighed]
        shape = (*scale.shape, len(values))
        return torch.stack(values, -1).view(shape), torch.stack(slopes, -1).view(shape)

    def moments(self, weights: Float[Tensor, "panels two nodes"]) -> Moments:
        """Weighted sums over the nodes of `s / r`, and of `a` and `a t`."""
        shape, scale = self._scale.shape, self._scale
        level = self._weighed[0] - self._weighed[1]
        by_rest = level.rest.view(shape)
        by_slot = level.slots.view(*shape, -1) * self._change
        first, step = self._means.unbind(-1)
        lean = by_rest * (first + self._places * step) + (by_slot * self._at).sum(-1)
        turn = torch.zeros_like(lean)
        if self._form.lines.norm.scaled:
            turn = lean / (self._form.lines.starts.shape[1] * scale**3)
        share = by_rest / (self._total.clamp(min=1e-300) * scale)
        return (
            torch.bmm(weights * share[:, None], self._weight),
            weights @ (by_slot / scale[..., None]),
            weights @ torch.stack([turn, turn * self._places], -1),
        )


def _with_derivative(post: Elementwise, raw: Tensor) -> tuple[Tensor, Tensor | None]:
    """Post-processed logits and their derivatives; None stands for ones."""
    if post is identity:
        return raw, None
    with dual_level():
        dual = forward_ad.make_dual(raw, torch.ones_like(raw))
        value, change = forward_ad.unpack_dual(post(dual))
    return value, torch.zeros_like(value) if change is None else change


def _rows_within(readout: LinearReadout, budget: int) -> int:
    """Rows of logits that fit into a budget."""
    copies = 1 if readout.post is identity else _COPIES
    return budget // (readout.vocab_size * 8 * copies)


def segments_within(readout: LinearReadout, memory_budget: int) -> int:
    """Segments whose logits fit into a budget, besides nodes and probes."""
    row = readout.vocab_size * readout.precision.itemsize
    return max(1, (memory_budget // 2 - PROBES * row) // (4 * row))
