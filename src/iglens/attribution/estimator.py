"""Estimators: how a segment's credit follows from the readout along it.

`Observed` credits every segment with the observed change of its level; it adds up by
construction. `Gradient` sums `<grad f, step>` at the nodes of a quadrature rule; it
only approaches the observed value, and its residual is reported as `completeness`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..errors import ArgumentError
from ..readout import MEMORY_BUDGET, AbstractReadout, TokenLogits, read
from ..readout.observers import Slope
from ..readout.target import token_slope
from ..records import Unit

Rule = Literal["midpoint", "trapezoid", "gauss-legendre"]

RULES: tuple[Rule, ...] = get_args(Rule)


class AbstractEstimator(ABC):
    """A rule that turns levels, and perhaps slopes, into credits."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What the result says it was made with."""

    @property
    @abstractmethod
    def nodes(self) -> Float[np.ndarray, "nodes 2"]:
        """Places in [0, 1] where slopes are needed, and their weights."""


@dataclass(frozen=True)
class Observed(AbstractEstimator):
    """The observed change of the level: `f(h_j) - f(h_{j-1})`.

    The steps inside a segment cancel in pairs, so there is no step count.
    """

    @property
    def name(self) -> str:
        """Always "observed"."""
        return "observed"

    @property
    def nodes(self) -> Float[np.ndarray, "nodes 2"]:
        """None."""
        return np.zeros((0, 2))


@dataclass(frozen=True)
class Gradient(AbstractEstimator):
    """`sum_s w_s <grad f(h_s), h_j - h_{j-1}>` at the nodes of a rule.

    Attributes:
        n_steps: Number of steps (midpoint, trapezoid) or nodes (Gauss-Legendre).
        rule: "midpoint" (as in the paper), "trapezoid" or "gauss-legendre".

    Raises:
        ArgumentError: If the rule is unknown or there is no step.

    Example:
        >>> Gradient(n_steps=2, rule="trapezoid").nodes.tolist()
        [[0.0, 0.25], [0.5, 0.5], [1.0, 0.25]]
    """

    n_steps: int = 64
    rule: Rule = "midpoint"

    def __post_init__(self) -> None:
        """Refuse what is no rule."""
        if self.rule not in RULES:
            raise ArgumentError(f"`rule` is {self.rule!r}; known are {list(RULES)}.")
        if self.n_steps < 1:
            raise ArgumentError(f"`n_steps` is {self.n_steps}; it must be at least 1.")

    @property
    def name(self) -> str:
        """Rule and step count."""
        return f"gradient({self.rule}, n_steps={self.n_steps})"

    @property
    def nodes(self) -> Float[np.ndarray, "nodes 2"]:
        """Nodes and weights on [0, 1]; the weights sum to 1."""
        n = self.n_steps
        if self.rule == "gauss-legendre":
            places, weights = np.polynomial.legendre.leggauss(n)
            return np.stack([(places + 1) / 2, weights / 2], 1)
        if self.rule == "midpoint":
            return np.stack([(np.arange(n) + 0.5) / n, np.full(n, 1 / n)], 1)
        weights = np.full(n + 1, 1 / n)
        weights[[0, -1]] /= 2
        return np.stack([np.linspace(0, 1, n + 1), weights], 1)


@torch.no_grad()
def slopes(
    readout: AbstractReadout,
    states: Float[Tensor, "points d_model"],
    directions: Float[Tensor, "points d_model"],
    tokens: Int[Tensor, "points slots"],
    chosen: Bool[Tensor, "points slots"],
    against: Bool[Tensor, "points slots"],
    unit: Unit,
    *,
    memory_budget: int = MEMORY_BUDGET,
) -> Float[Tensor, " points"]:
    """`<grad f, direction>` of every point's target, in one streamed pass.

    Equals reverse-mode autograd through `readout.logits`, dotted with the direction,
    but runs forward: the derivative of every logit is streamed beside the logit.
    """
    slope = Slope(tokens)
    found = read(
        readout,
        states,
        tokens,
        directions=directions,
        observers=[slope],
        memory_budget=memory_budget,
    )
    changes = TokenLogits(slope.own, slope.rest, found.rest_max)
    return token_slope(found, changes, chosen, against, unit)
