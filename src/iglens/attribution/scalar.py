"""Scalars of whole distributions: entropy, divergence, and those of the user's own."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ArgumentError
from ..records import Target

Function = Callable[[Tensor], Tensor]
"""Rows of float64 logits, `(points, vocab)`, to one number each, `(points,)`."""


@dataclass(frozen=True, eq=False)
class Scalar:
    """A number of your own, computed from all logits of a state.

    Anything of the logits telescopes: the margin between two groups of tokens, an
    expected rating, a calibration measure. Each row is judged by itself.

    Attributes:
        name: What to show.
        function: Maps float64 logits of shape (points, vocab) to (points,), with torch
            operations (the gradient estimator differentiates it).
        unit: Its unit.

    Example:
        >>> stars = torch.arange(1, 6).double()
        >>> rating = Scalar("stars", lambda z: z.softmax(-1) @ stars)
        >>> rating.target.space
        'scalar'
    """

    name: str
    function: Function
    unit: str = "scalar"

    @property
    def target(self) -> Target:
        """What a result keeps of it."""
        return Target((), self.name, space=self.unit, kind="scalar")

    def __call__(
        self, logits: Float[Tensor, "points vocab"]
    ) -> Float[Tensor, " points"]:
        """Its values, as float64.

        Raises:
            ArgumentError: If the function does not give one number per row.
        """
        values: object = self.function(logits)
        if not isinstance(values, Tensor) or values.shape != logits.shape[:1]:
            raise ArgumentError(
                f"The scalar {self.name!r} must give {len(logits)} numbers for logits "
                f"of shape {tuple(logits.shape)}, one per row, but gives {values!r}."
            )
        return values.double()


def entropy(logits: Float[Tensor, "points vocab"]) -> Float[Tensor, " points"]:
    """Entropy of each row's distribution, in nats."""
    log = logits.log_softmax(-1)
    return -(log.exp() * log.clamp(min=-1e4)).sum(-1)


def divergence_from(final: Float[Tensor, " vocab"]) -> Function:
    """`KL(final || row)` in nats, as a function of rows of logits."""
    log_final = final.log_softmax(-1).clamp(min=-1e4)
    weight = log_final.exp()

    def divergence(logits: Tensor) -> Tensor:
        missing = (weight * (log_final - logits.log_softmax(-1))).masked_fill(
            weight == 0, 0.0
        )
        return missing.sum(-1)

    return divergence


def function_of(
    target: Target, scalar: Scalar | None, final: Float[Tensor, " vocab"]
) -> Function:
    """The scalar of a target that has no tokens.

    Args:
        target: "entropy", "kl" or "scalar".
        scalar: The user's, for the last kind.
        final: Logits of the row's last state.
    """
    if scalar is not None:
        return scalar
    return entropy if target.kind == "entropy" else divergence_from(final)


def derivative(
    function: Function,
    logits: Float[Tensor, "points vocab"],
    changes: Float[Tensor, "points vocab"],
) -> Float[Tensor, " points"]:
    """`<grad F(z), dz>` of every row: one reverse pass, since rows are apart."""
    with torch.enable_grad():
        held = logits.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(function(held).sum(), held)
    return torch.where(gradient == 0, 0.0, gradient * changes).sum(-1)
