"""A post-norm with its scale frozen: then it is affine and distributes over parts."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ..readout.scaled_norm import ScaledNorm


@dataclass(frozen=True, eq=False)
class FrozenNorm:
    """A norm whose scale is a given number for every row.

    Attributes:
        form: `beta + G C y / r(y)`.
        scales: `r` of every row.
    """

    form: ScaledNorm
    scales: Float[Tensor, " rows"]

    @classmethod
    def at(cls, form: ScaledNorm, given: Float[Tensor, "rows d_model"]) -> "FrozenNorm":
        """The norm, frozen at what it was given."""
        return cls(form, form.scale(given.double()))

    def at_rows(self, rows: slice) -> "FrozenNorm":
        """The same of some rows."""
        return FrozenNorm(self.form, self.scales[rows])

    def __call__(self, vectors: Float[Tensor, "rows d_model"]) -> Tensor:
        """`beta + G C y / r`, one vector for each row."""
        linear = self.form.linear(vectors.double())
        return self.form.offset + linear / self.scales[:, None]

    def pull(self, gradient: Float[Tensor, "rows d_model"]) -> Tensor:
        """`C G^T g / r`."""
        return self.form.transposed(gradient) / self.scales[:, None]
