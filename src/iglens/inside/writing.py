r"""What writes inside a part of a block: heads, neurons, (head, source token) pairs.

The update of a part, a difference of states, is what one linear module makes of the
vector `x` it takes, behind a norm in some models:

    update = s P(W x + b) [+ (c - 1) h],      P(y) = y  or  beta + G C y / r(y),

with `s` and `c` the factors of the update and of the carried state `h`. The scale `r`
of a post-norm is *frozen* at its actual value: with `r` a number, `P` is affine, and
the update is a sum over whatever `x` is a sum of. Neurons are the entries of `x`, heads
its pieces, and what a head gives is a sum over the tokens it attends to. For a gradient
`g` the share of entry `i` is `(s W^T G^T g / r)_i x_i`: one product with `W^T` serves
all parts, and no vector of a part is ever held. Biases and offsets of norms are parts
of their own, and what rounding leaves is the rest.

Axes: a *row* is a position; *width* numbers are what the writer takes.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from ..errors import ArgumentError
from .attended import Attended
from .frozen_norm import FrozenNorm


@dataclass(frozen=True, eq=False)
class Writing:
    """How the update of one part of one block is a sum, at some rows of a text.

    All that is computed from gradients is in float64, one number for each row and
    part; gradients are `g` of the rows, as `AveragedGradient.closed` gives them.

    Attributes:
        update: The true difference of states, which everything adds up to.
        taken: `x`, what the writer took, as the model computed it.
        transposed: `W^T v` of some vectors, in float64.
        bias: `b`.
        norm: The post-norm, frozen; None where there is none.
        scale: `s`.
        carried: `(c - 1) h`, where the state itself is scaled; whatever becomes of it
            where it passes through a norm together with what is written.
        n_heads: Number of heads; None if `x` is no pieces of heads.
        heads_reason: Why it is not.
        has_neurons: Whether every entry of `x` is a neuron.
        neurons_reason: Why it is none.
        attended: What the heads read; a sentence fragment where that is not known.
    """

    update: Float[Tensor, "rows d_model"]
    taken: Float[Tensor, "rows width"]
    transposed: Callable[[Tensor], Tensor]
    bias: Float[Tensor, " d_model"]
    norm: FrozenNorm | None = None
    scale: float = 1.0
    carried: Float[Tensor, "rows d_model"] | None = None
    n_heads: int | None = None
    heads_reason: str | None = None
    has_neurons: bool = False
    neurons_reason: str | None = None
    attended: Attended | str = "it was not asked for"

    def at(self, rows: slice) -> "Writing":
        """The same of some rows."""
        attended = self.attended
        return replace(
            self,
            update=self.update[rows],
            taken=self.taken[rows],
            norm=None if self.norm is None else self.norm.at_rows(rows),
            carried=None if self.carried is None else self.carried[rows],
            attended=attended if isinstance(attended, str) else attended.at(rows),
        )

    def pull(
        self, gradient: Float[Tensor, "rows d_model"]
    ) -> Float[Tensor, "rows width"]:
        """`s W^T P^T g`: the gradient with respect to what the writer took."""
        return self.transposed(self._behind_writer(gradient)) * self.scale

    def entries(
        self, gradient: Float[Tensor, "rows d_model"]
    ) -> Float[Tensor, "rows width"]:
        """Share of every entry of `x`, whatever it stands for."""
        return self.pull(gradient) * self.taken.to(gradient)

    def neurons(
        self, gradient: Float[Tensor, "rows d_model"]
    ) -> Float[Tensor, "rows neurons"]:
        """Share of every neuron.

        Raises:
            ArgumentError: If the part has no neurons.
        """
        if not self.has_neurons:
            raise ArgumentError(
                f"This part has no neurons: {self.neurons_reason or 'unknown why'}."
            )
        return self.entries(gradient)

    def heads(
        self, gradient: Float[Tensor, "rows d_model"]
    ) -> Float[Tensor, "rows heads"]:
        """Share of every head.

        Raises:
            ArgumentError: If the part's heads cannot be told apart.
        """
        return self.entries(gradient).unflatten(-1, (self._heads(), -1)).sum(-1)

    def sources(
        self, gradient: Float[Tensor, "rows d_model"]
    ) -> Float[Tensor, "rows heads tokens"]:
        """Share of what every head read from every token of the text.

        The state of a token that is read from already mixes earlier ones. A head's
        share less those of its sources is that of the values' bias, and rounding: mass
        on a sink without a value gives nothing.

        Raises:
            ArgumentError: If it is not known what the heads read.
        """
        n_heads = self._heads()
        if isinstance(self.attended, str):
            raise ArgumentError(
                f"What the heads of this part read is not known: {self.attended}."
            )
        return self.attended.shares(self.pull(gradient).unflatten(-1, (n_heads, -1)))

    def offsets(self, gradient: Float[Tensor, "rows d_model"]) -> dict[str, Tensor]:
        """Shares of what does not depend on `x`, one number for each row.

        "bias": the writer's, behind the norm. "norm offset": the post-norm's own.
        "carry": of a state that is itself scaled or normed. Only those that there are.
        """
        found = {}
        if bool(self.bias.any()):
            bias = self.bias.to(gradient)
            found["bias"] = self._behind_writer(gradient) @ bias * self.scale
        if self.norm is not None and bool(self.norm.form.offset.any()):
            offset = self.norm.form.offset.to(gradient)
            found["norm offset"] = gradient @ offset * self.scale
        if self.carried is not None:
            found["carry"] = (gradient * self.carried.to(gradient)).sum(1)
        return found

    def rest(
        self,
        gradient: Float[Tensor, "rows d_model"],
        shares: Float[Tensor, "rows parts"],
    ) -> Float[Tensor, " rows"]:
        """What shares of parts and offsets miss of the update's: rounding.

        Args:
            gradient: `g`.
            shares: All heads, or all neurons, for the same gradient.
        """
        total = (gradient * self.update.to(gradient)).sum(1)
        for known in (shares.sum(1), *self.offsets(gradient).values()):
            total = total - known
        return total

    def _behind_writer(self, gradient: Tensor) -> Tensor:
        """`P^T g`, without the scale."""
        return gradient if self.norm is None else self.norm.pull(gradient)

    def _heads(self) -> int:
        """Number of heads."""
        if self.n_heads is None:
            raise ArgumentError(
                "The heads of this part cannot be told apart: "
                f"{self.heads_reason or 'unknown why'}."
            )
        return self.n_heads
