r"""Integrals along segments: a pair of rules, and pieces cut where they disagree.

A segment is `h(t) = h + t D` for `t` in [0, 1], and what is integrated is the gradient
of a scalar along it. Every panel, a piece of a segment, is read at the 15 nodes of the
Gauss-Kronrod rule; the 7-node Gauss rule uses every second of them. A panel counts as
done when

* the two rules agree on the scalar's own change,
* they agree on the gradient as a vector, so on any part of the step, and
* the rule gives the known change of every watched scalar between the panel's ends;

else it is halved. The third condition sees what both rules step over: they agree on
nothing at all if everything happens between two nodes.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_PLACES = (
    0.991455371120812639206854697526329,
    0.949107912342758524526189684047851,
    0.864864423359769072789712788640926,
    0.741531185599394439863864773280788,
    0.586087235467691130294144691258380,
    0.405845151377397166906606412076961,
    0.207784955007898467600689403773245,
    0.0,
)
_KRONROD = (
    0.022935322010529224963732008058970,
    0.063092092629978553290700663189204,
    0.104790010322250183839876322541518,
    0.140653259715525918745189590510238,
    0.169004726639267902826583426598550,
    0.190350578064785409913256402421014,
    0.204432940075298892414161999234649,
    0.209482141084727828012999174891714,
)
_GAUSS = (
    0.129484966168869693270611432679082,
    0.279705391489276667901467771423780,
    0.381830050505118944950369775488975,
    0.417959183673469387755102040816327,
)

MISSED = 1e-3
"""What a watched scalar's change may be off by on a panel, in its own unit.

A distribution that changes between two nodes and not at them bends the log-normaliser
by more than a nat from node to node: this is far below, and far above rounding.
"""

ROUNDING = 64
"""Roundings of a watched scalar that its change may be off by in any case."""

SHORTEST = 2.0**-40
"""Panels are not halved further."""


def _mirrored(half: Tensor, sign: float) -> Tensor:
    """All values of a symmetric rule, from those of one half."""
    return torch.cat([half, sign * half[:-1].flip(0)])


def _rule() -> Float[Tensor, "three nodes"]:
    """Places in [0, 1], and the weights of both rules there."""
    places, kronrod = (
        torch.tensor(v, dtype=torch.float64) for v in (_PLACES, _KRONROD)
    )
    gauss = torch.zeros(8, dtype=torch.float64)
    gauss[1::2] = torch.tensor(_GAUSS, dtype=torch.float64)
    return torch.stack(
        [
            (1 - _mirrored(places, -1.0)) / 2,
            _mirrored(kronrod, 1.0) / 2,
            _mirrored(gauss, 1.0) / 2,
        ]
    )


NODES, KRONROD, GAUSS = _rule()
"""Places in [0, 1], ascending; weights of the 15-node rule, and of the 7-node one."""

MIDDLE = len(NODES) // 2
"""The node that is the middle of its panel."""


@dataclass(frozen=True, eq=False)
class Panels:
    """Pieces of segments.

    Attributes:
        segment: Which segment each is a piece of.
        left: Where it starts, in [0, 1].
        right: Where it ends.
        before: The watched scalars where it starts.
        after: The watched scalars where it ends.
    """

    segment: Int[Tensor, " panels"]
    left: Float[Tensor, " panels"]
    right: Float[Tensor, " panels"]
    before: Float[Tensor, "panels scalars"]
    after: Float[Tensor, "panels scalars"]

    @property
    def width(self) -> Float[Tensor, " panels"]:
        """Length, as a share of the segment."""
        return self.right - self.left

    @property
    def places(self) -> Float[Tensor, "panels nodes"]:
        """The nodes."""
        return self.left[:, None] + self.width[:, None] * NODES.to(self.left)

    @property
    def weights(self) -> Float[Tensor, "panels two nodes"]:
        """Weights of the 15-node rule, and what those of the other lack."""
        pair = torch.stack([KRONROD, KRONROD - GAUSS]).to(self.left)
        return self.width[:, None, None] * pair

    def __len__(self) -> int:
        """How many there are."""
        return len(self.segment)

    def __getitem__(self, which: slice | Bool[Tensor, " panels"]) -> "Panels":
        """Some of them."""
        return Panels(*(getattr(self, name)[which] for name in self._fields))

    def __add__(self, more: "Panels") -> "Panels":
        """These and more."""
        pairs = ((getattr(self, n), getattr(more, n)) for n in self._fields)
        return Panels(*(torch.cat(pair) for pair in pairs))

    def halves(self, middle: Float[Tensor, "panels scalars"]) -> "Panels":
        """Both halves of each, the watched scalars in the middle being known."""
        at = (self.left + self.right) / 2
        return replace(self, right=at, after=middle) + replace(
            self, left=at, before=middle
        )

    @property
    def _fields(self) -> tuple[str, ...]:
        """Names of the attributes."""
        return tuple(self.__dataclass_fields__)


Moments = tuple[Tensor, ...]
"""Integrals in the integrand's own coordinates, each panels x 2 x …: the 15-node rule's
and its difference from the 7-node rule's."""


@dataclass(frozen=True, eq=False)
class Look:
    """What was read on some panels.

    Attributes:
        values: The watched scalars; the first minus the second is integrated.
        slopes: Their derivatives along the segment.
        moments: The gradient's integrals.
        apart: Length of the vector by which the two rules' gradients differ.
        rounding: How much of that may be rounding.
    """

    values: Float[Tensor, "panels nodes scalars"]
    slopes: Float[Tensor, "panels nodes scalars"]
    moments: Moments
    apart: Float[Tensor, " panels"]
    rounding: Float[Tensor, " panels"]


class AbstractIntegrand(ABC):
    """The gradient of a scalar along some segments.

    Attributes:
        at_once: Panels that may be looked at together.
        precision: The dtype its values are rounded in.
    """

    at_once: int
    precision: torch.dtype

    @abstractmethod
    def cuts(self) -> list[list[float]]:
        """Where every segment must be cut before it is looked at, ascending."""

    @abstractmethod
    def values(
        self, segment: Int[Tensor, " points"], places: Float[Tensor, " points"]
    ) -> Float[Tensor, "points scalars"]:
        """The watched scalars at some places."""

    @abstractmethod
    def look(self, panels: Panels) -> Look:
        """Read all nodes of some panels, at most `at_once`."""

    @abstractmethod
    def zeros(self) -> Moments:
        """Moments of every segment before anything was added."""

    @abstractmethod
    def gradients(self, moments: Moments) -> Float[Tensor, "segments two d_model"]:
        """The integrals of the gradient that the moments stand for, in float64."""


@dataclass(frozen=True, eq=False)
class Integral:
    """The averaged gradient of some segments.

    Attributes:
        gradient: By the 15-node rule.
        difference: Its difference from the 7-node rule's on the same panels.
        change: The scalar at the end minus that at the start.
        nodes: How many states were read.
        capped: Whether reading stopped at the largest number of nodes.
    """

    gradient: Float[Tensor, "segments d_model"]
    difference: Float[Tensor, "segments d_model"]
    change: Float[Tensor, " segments"]
    nodes: Int[Tensor, " segments"]
    capped: Bool[Tensor, " segments"]


def integrate(
    integrand: AbstractIntegrand,
    sizes: Float[Tensor, " segments"],
    tolerance: float,
    max_nodes: int,
) -> Integral:
    """Average a gradient over segments, halving panels until the rules agree.

    Args:
        integrand: What to integrate.
        sizes: Length of the largest part that will be multiplied with each gradient.
        tolerance: What the rules may differ by, in the scalar's unit: a quarter of it
            times the root of a panel's width on each panel.
        max_nodes: States to read per segment at most.
    """
    waiting, nodes, change = _first(integrand, len(sizes))
    capped = torch.zeros_like(nodes, dtype=torch.bool)
    totals = integrand.zeros()
    while len(waiting):
        panels, waiting = waiting[-integrand.at_once :], waiting[: -integrand.at_once]
        look = integrand.look(panels)
        nodes += len(NODES) * panels.segment.bincount(minlength=len(sizes))
        still = nodes + len(NODES) * waiting.segment.bincount(minlength=len(sizes))
        good = _agree(
            look, panels, sizes[panels.segment], tolerance, integrand.precision
        )
        full = still[panels.segment] >= max_nodes
        capped[panels.segment[full & ~good]] = True
        done = good | full | (panels.width <= SHORTEST) | ~_finite(look, panels)
        for total, moment in zip(totals, look.moments, strict=True):
            total.index_add_(0, panels.segment[done], moment[done].to(total))
        waiting += panels[~done].halves(look.values[~done, MIDDLE])
    fine, apart = integrand.gradients(totals).unbind(1)
    return Integral(fine, apart, change, nodes, capped)


def _first(
    integrand: AbstractIntegrand, n_segments: int
) -> tuple[Panels, Int[Tensor, " segments"], Float[Tensor, " segments"]]:
    """The first panels, the nodes it took to know their ends, and the whole changes."""
    device = integrand.zeros()[0].device
    meshes = [[0.0, *cuts, 1.0] for cuts in integrand.cuts()]
    owner = torch.tensor([i for i, m in enumerate(meshes) for _ in m], device=device)
    places = torch.tensor(
        [t for m in meshes for t in m], dtype=torch.float64, device=device
    )
    values = integrand.values(owner, places)
    starts, ends = (places < 1).nonzero()[:, 0], (places > 0).nonzero()[:, 0]
    panels = Panels(
        owner[starts], places[starts], places[ends], values[starts], values[ends]
    )
    level = values[:, 0] - values[:, 1]
    change = level[places == 1] - level[places == 0]
    return panels, owner.bincount(minlength=n_segments), change


def _agree(
    look: Look,
    panels: Panels,
    sizes: Float[Tensor, " panels"],
    tolerance: float,
    precision: torch.dtype,
) -> Bool[Tensor, " panels"]:
    """Whether a panel is done: see the head of this file."""
    limit = tolerance / 4 * panels.width.sqrt()
    apart = torch.maximum(limit, look.rounding * sizes)
    fine, short = (panels.weights @ look.slopes).unbind(1)
    missed = (fine - (panels.after - panels.before)).abs()
    rounded = torch.finfo(precision).eps * ROUNDING
    floor = rounded * look.values.abs().amax(1).clamp(min=1.0)
    allowed = torch.full_like(missed, MISSED)
    allowed[:, :2] = limit[:, None]
    return (
        ((short[:, 0] - short[:, 1]).abs() <= apart)
        & (look.apart * sizes <= apart)
        & (missed <= torch.maximum(allowed, floor)).all(1)
    )


def _finite(look: Look, panels: Panels) -> Bool[Tensor, " panels"]:
    """Whether everything that was read is a number."""
    ends = torch.cat([panels.before, panels.after], 1)
    nodes = torch.cat([look.values, look.slopes], 2).flatten(1)
    read = torch.cat([ends, nodes, look.apart[:, None]], 1)
    return read.isfinite().all(1)
