"""The gradient of a level, averaged along straight segments."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...errors import ArgumentError
from ...readout import MEMORY_BUDGET, AbstractReadout, LinearReadout
from ...readout.scaled_norm import ScaledNorm, scaled_norm
from ...records import Unit
from .closed_form import ClosedForm, segments_within
from .pulled_back import PulledBack
from .quadrature import AbstractIntegrand, integrate
from .wanted import Wanted

TOLERANCE = 1e-6
"""Certificates aimed at, in the level's unit."""

MAX_NODES = 15 * 256
"""States read per segment at most."""


@dataclass(frozen=True, eq=False)
class AveragedGradient:
    """The gradient of a level, averaged along some segments.

    Attributes:
        gradient: `g` before closure, in float64.
        difference: What the coarser of the two rules would add to it.
        step: `D`, the end of each segment minus its start.
        change: Change of the level along each segment, as the integrator reads it.
        nodes: States that were read along each segment.
        capped: Whether reading stopped at the largest number of nodes.
        closed_form: Whether the readout allowed the closed form.
    """

    gradient: Float[Tensor, "segments d_model"]
    difference: Float[Tensor, "segments d_model"]
    step: Float[Tensor, "segments d_model"]
    change: Float[Tensor, " segments"]
    nodes: Int[Tensor, " segments"]
    capped: Bool[Tensor, " segments"]
    closed_form: bool

    @property
    def residual(self) -> Float[Tensor, " segments"]:
        """`rho`: what the integral misses of the change."""
        return self.change - (self.gradient * self.step).sum(1)

    @property
    def disagreement(self) -> Float[Tensor, " segments"]:
        """Length of `difference`: what the rules disagree by on a part of length 1."""
        return torch.linalg.vector_norm(self.difference, dim=1)

    def closed(
        self, credits: Float[Tensor, " segments"] | None = None
    ) -> Float[Tensor, "segments d_model"]:
        """The gradient whose product with the step is the credit.

        Args:
            credits: Each segment's credit; the integrator's own change if not given.

        Returns:
            `g + rho D / |D|^2`; `g` itself where there is no step.
        """
        total = self.change if credits is None else credits
        missed = total - (self.gradient * self.step).sum(1)
        return self.gradient + missed[:, None] * self._along

    @property
    def _along(self) -> Float[Tensor, "segments d_model"]:
        """`D / |D|^2`, or zero."""
        square = self.step.square().sum(1, keepdim=True)
        return torch.where(square > 0, self.step / square, 0.0)

    def within(
        self, sizes: Float[Tensor, " segments"], tolerance: float
    ) -> Bool[Tensor, " segments"]:
        """Whether nothing was missed, on parts of these lengths; NaN is not within."""
        apart = self.disagreement * sizes
        return (self.residual.abs() <= tolerance) & (apart <= tolerance)

    def replaced(
        self, segments: Int[Tensor, " picked"], by: "AveragedGradient"
    ) -> "AveragedGradient":
        """The same with other results for some segments; nodes are added up."""
        values = {}
        for name in self._tensors:
            values[name] = getattr(self, name).clone()
            values[name][segments] = getattr(by, name)
        values["nodes"][segments] += self.nodes[segments]
        return AveragedGradient(**values, closed_form=self.closed_form)

    @classmethod
    def joined(cls, pieces: "list[AveragedGradient]") -> "AveragedGradient":
        """Several results as one."""
        values = {
            name: torch.cat([getattr(piece, name) for piece in pieces])
            for name in pieces[0]._tensors
        }
        return cls(**values, closed_form=pieces[0].closed_form)

    @property
    def _tensors(self) -> tuple[str, ...]:
        """Names of what there is per segment."""
        return tuple(f.name for f in fields(self) if f.name != "closed_form")


def averaged_gradient(
    readout: AbstractReadout,
    starts: Float[Tensor, "segments d_model"],
    ends: Float[Tensor, "segments d_model"],
    tokens: Int[Tensor, "segments slots"],
    chosen: Bool[Tensor, "segments slots"],
    against: Bool[Tensor, "segments slots"],
    unit: Unit = "probability",
    *,
    sizes: Float[Tensor, " segments"] | None = None,
    tolerance: float = TOLERANCE,
    max_nodes: int = MAX_NODES,
    memory_budget: int = MEMORY_BUDGET,
) -> AveragedGradient:
    r"""Average the gradient of a level along straight segments.

    Equals `int_0^1 grad f(h + t D) dt` by reverse-mode differentiation of the level
    through the readout, at as many `t` as it takes for two rules to agree. Where the
    readout is a scaled norm and a matrix, every segment costs three matrix-vector
    products and one per `t` costs none; elsewhere each `t` costs a pass there and back.

    Args:
        readout: What to read with.
        starts: Where the segments start.
        ends: Where they end.
        tokens: Distinct token ids per segment, at least one; -1 marks an unused slot.
        chosen: The slots that make up each segment's target.
        against: The slots it is contrasted with.
        unit: Unit of the level.
        sizes: Length of the longest part that is to be multiplied with each gradient;
            that of the step if not given.
        tolerance: What residual and disagreement, times the size, may be, in `unit`.
            Where single precision does not reach that, double is used.
        max_nodes: States to read per segment at most; beyond, the result says that it
            was capped, and is what it is.
        memory_budget: Bytes for logits. At least some rows of logits are held.

    Raises:
        ArgumentError: If a segment has no token.
        UnsupportedModelError: If the readout cannot be differentiated.

    Example:
        >>> readout = LinearReadout.plain(lambda h: h, torch.eye(3).double())
        >>> start, end = torch.zeros(1, 3).double(), torch.eye(3).double()[:1]
        >>> token, yes = torch.tensor([[0]]), torch.tensor([[True]])
        >>> found = averaged_gradient(readout, start, end, token, yes, ~yes)
        >>> found.closed() @ end[0], found.change
        (tensor([0.2428], dtype=torch.float64), tensor([0.2428], dtype=torch.float64))
    """
    if not bool((tokens >= 0).any(1).all()):
        raise ArgumentError("`tokens` must name at least one token for every segment.")
    first = starts.double()
    steps = ends.double() - first
    length = torch.linalg.vector_norm(steps, dim=1)
    wanted = Wanted(tokens, chosen, against, unit)
    task = _Task(first, steps, wanted, length if sizes is None else sizes.double())
    effort = _Effort(tolerance, max_nodes, memory_budget)
    found = _average(task, readout, effort)
    weak = (~found.within(task.sizes, tolerance)).nonzero()[:, 0]
    if len(weak) and found.closed_form and readout.precision != torch.float64:
        finer = readout.with_precision(torch.float64)
        return found.replaced(weak, _average(task.at(weak), finer, effort))
    return found


@dataclass(frozen=True, eq=False)
class _Task:
    """What is averaged along which segments."""

    starts: Float[Tensor, "segments d_model"]
    steps: Float[Tensor, "segments d_model"]
    wanted: Wanted
    sizes: Float[Tensor, " segments"]

    def at(self, segments: Int[Tensor, " picked"]) -> "_Task":
        """Some of the segments."""
        return _Task(
            self.starts[segments],
            self.steps[segments],
            self.wanted.at(segments),
            self.sizes[segments],
        )


@dataclass(frozen=True)
class _Effort:
    """How exact, and at what price."""

    tolerance: float
    max_nodes: int
    memory_budget: int


def _average(
    task: _Task, readout: AbstractReadout, effort: _Effort
) -> AveragedGradient:
    """As many segments at a time as memory allows."""
    norm = _scaled_norm(readout, task)
    width = len(task.starts)
    if norm is not None and isinstance(readout, LinearReadout):
        width = segments_within(readout, effort.memory_budget)
    each = torch.arange(len(task.starts), device=task.starts.device)
    pieces = []
    for part in each.split(max(1, width)):
        some = task.at(part)
        if not len(part):
            return _nothing(some)
        integrand = _integrand(some, readout, norm, effort.memory_budget)
        found = integrate(integrand, some.sizes, effort.tolerance, effort.max_nodes)
        pieces.append(
            AveragedGradient(
                found.gradient,
                found.difference,
                some.steps,
                found.change,
                found.nodes,
                found.capped,
                norm is not None,
            )
        )
    return AveragedGradient.joined(pieces)


def _nothing(task: _Task) -> AveragedGradient:
    """What no segment at all gives."""
    none = task.sizes
    return AveragedGradient(
        task.steps, task.steps, task.steps, none, none.long(), none.bool(), False
    )


def _scaled_norm(readout: AbstractReadout, task: _Task) -> ScaledNorm | None:
    """The form of a readout's norm, proved on the segments' ends too."""
    if not isinstance(readout, LinearReadout):
        return None
    states = torch.cat([task.starts, task.starts + task.steps])
    double = torch.float64
    return scaled_norm(lambda h: readout.norm(h, double).to(double), states)


def _integrand(
    task: _Task, readout: AbstractReadout, norm: ScaledNorm | None, memory_budget: int
) -> AbstractIntegrand:
    """The closed form where the readout has one."""
    if norm is None or not isinstance(readout, LinearReadout):
        return PulledBack(readout, task.starts, task.steps, task.wanted, memory_budget)
    return ClosedForm(
        readout, norm, task.starts, task.steps, task.wanted, memory_budget
    )
