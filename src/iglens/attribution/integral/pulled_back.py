"""The gradient along a segment by reverse-mode differentiation, whatever the readout.

For readouts without a closed form: a norm of another kind, or a head that is called
and not read. Every node costs a pass through the readout and a few back.
"""

from abc import ABC, abstractmethod
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...errors import UnsupportedModelError
from ...readout import AbstractReadout, CalledReadout, LinearReadout, TokenLogits
from ...readout.linear import identity
from .quadrature import NODES, AbstractIntegrand, Look, Moments, Panels
from .unembedded import Unembedding
from .wanted import Wanted

_ROUNDINGS = 8
"""Roundings of a gradient that two rules may differ by."""

_COPIES = 8
"""Rows of logits, in float64, that a node takes on its way there and back."""


class _AbstractPass(ABC):
    """Rows of logits, and the way back from them to the states."""

    logits: Float[Tensor, "points vocab"]

    @abstractmethod
    def back(self, slopes: Float[Tensor, "points vocab"]) -> Tensor:
        """`J^T s`: the gradient in the states, from that in the logits."""


@final
class _CalledPass(_AbstractPass):
    """Through a function that torch differentiates."""

    def __init__(self, readout: CalledReadout, states: Tensor) -> None:
        self._leaf = states.to(readout.dtype).detach().requires_grad_()
        with torch.enable_grad():
            self._output = readout.tail(self._leaf)
        if not self._output.requires_grad:
            raise UnsupportedModelError(
                "This model's head is called without derivatives, so the parts of a "
                "segment cannot be told apart. Stay at layers or sublayers, which need "
                "none."
            )
        self.logits = self._output.detach()

    def back(self, slopes: Float[Tensor, "points vocab"]) -> Tensor:
        return _vjp(self._output, self._leaf, slopes)


@final
class _LinearPass(_AbstractPass):
    """Through a norm that torch differentiates, and a head read in blocks."""

    def __init__(self, readout: LinearReadout, states: Tensor, budget: int) -> None:
        self._post, self._head = readout.post, Unembedding(readout, budget)
        self._leaf = states.to(readout.precision).detach().requires_grad_()
        with torch.enable_grad():
            self._normed = readout.norm(self._leaf, readout.precision)
        self._raw = self._head.out(self._normed.detach())
        bias = readout.weights()[1]
        if bias is not None:
            self._raw += bias.to(self._raw)
        self._raw.requires_grad_()
        with torch.enable_grad():
            self._output = self._post(self._raw)
        self.logits = self._output.detach()

    def back(self, slopes: Float[Tensor, "points vocab"]) -> Tensor:
        raw = slopes
        if self._post is not identity:
            raw = _vjp(self._output, self._raw, slopes)
        return _vjp(self._normed, self._leaf, self._head.back(raw.to(self._raw)))


def _vjp(output: Tensor, leaf: Tensor, slopes: Tensor) -> Tensor:
    """`J^T s`."""
    try:
        (found,) = torch.autograd.grad(
            output, leaf, slopes.to(output), retain_graph=True
        )
    except (RuntimeError, NotImplementedError) as error:
        raise UnsupportedModelError(
            f"What stands before this model's head has no derivative ({error}), so the "
            "parts of a segment cannot be told apart. Stay at layers or sublayers, "
            "which need none."
        ) from error
    return found.double()


class PulledBack(AbstractIntegrand):
    """The gradient of a level behind any readout."""

    def __init__(
        self,
        readout: AbstractReadout,
        starts: Float[Tensor, "segments d_model"],
        steps: Float[Tensor, "segments d_model"],
        wanted: Wanted,
        memory_budget: int,
    ) -> None:
        """Take the segments; see `ClosedForm`."""
        self.readout, self.wanted = readout, wanted
        self.precision = readout.precision
        self._starts, self._steps = starts, steps
        self._budget = memory_budget
        self._rounding = _ROUNDINGS * torch.finfo(self.precision).eps
        self._rows = max(1, memory_budget // (readout.vocab_size * 8 * _COPIES))
        self.at_once = max(1, self._rows // len(NODES))

    def cuts(self) -> list[list[float]]:
        """None: nothing is known beforehand."""
        return [[] for _ in self._starts]

    def zeros(self) -> Moments:
        """Nothing yet."""
        return (torch.stack([torch.zeros_like(self._starts)] * 2, 1),)

    def values(
        self, segment: Int[Tensor, " points"], places: Float[Tensor, " points"]
    ) -> Float[Tensor, "points scalars"]:
        """The watched scalars at some places."""
        return self._read(segment, places)[0]

    def look(self, panels: Panels) -> Look:
        """Read all nodes of some panels, as many together as memory allows."""
        segment = panels.segment.repeat_interleave(len(NODES))
        found = self._read(segment, panels.places.flatten())
        values, slopes, gradients = (f.unflatten(0, (-1, len(NODES))) for f in found)
        moment = panels.weights @ gradients
        apart = torch.linalg.vector_norm(moment[:, 1], dim=1)
        lengths = torch.linalg.vector_norm(gradients, dim=2)
        rounding = (panels.weights[:, 0] * lengths).sum(1) * self._rounding
        return Look(values, slopes, (moment,), apart, rounding)

    def gradients(self, moments: Moments) -> Float[Tensor, "segments two d_model"]:
        """They are gradients already."""
        return moments[0]

    def _read(
        self, segment: Int[Tensor, " points"], places: Float[Tensor, " points"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Watched scalars, their slopes, and the gradient, at some places."""
        turns = zip(segment.split(self._rows), places.split(self._rows), strict=True)
        pieces = [self._read_some(s, t) for s, t in turns]
        values, slopes, gradients = (
            torch.cat(part) for part in zip(*pieces, strict=True)
        )
        return values, slopes, gradients

    def _read_some(
        self, segment: Tensor, places: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same for as many points as memory allows."""
        states = self._starts[segment] + places[:, None] * self._steps[segment]
        passed = self._pass(states)
        wanted = self.wanted.at(segment)
        logits = passed.logits.double()
        known = wanted.apart
        others = logits.scatter(1, known, -torch.inf)
        rest = others.logsumexp(1)
        slots = logits.gather(1, known).masked_fill(wanted.tokens < 0, -torch.inf)
        shares = others.softmax(1).nan_to_num(0.0)
        weighed = wanted.weigh(TokenLogits(slots, rest, rest))
        back = []
        for scalar in weighed:
            by_logit = shares * scalar.rest[:, None]
            by_logit.scatter_add_(1, known, scalar.slots)
            back.append(passed.back(by_logit))
        gradients = torch.stack(back, 1)
        values = torch.stack([scalar.value for scalar in weighed], 1)
        slopes = (gradients * self._steps[segment][:, None]).sum(-1)
        return values, slopes, gradients[:, 0] - gradients[:, 1]

    def _pass(self, states: Float[Tensor, "points d_model"]) -> _AbstractPass:
        """Rows of logits of some states."""
        if isinstance(self.readout, LinearReadout):
            return _LinearPass(self.readout, states, self._budget // 4)
        assert isinstance(self.readout, CalledReadout)  # there is no third kind
        return _CalledPass(self.readout, states)
