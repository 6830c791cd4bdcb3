"""Directions of a user's own, such as the features of a sparse autoencoder."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ArgumentError


@dataclass(frozen=True, eq=False)
class Directions:
    """An update as a sum of given directions, and what they miss of it.

    Attributes:
        vectors: The directions, such as the rows of a decoder matrix.
        coefficients: How much of each the update has, per traced position: activations,
            or differences of activations where features describe states.

    Raises:
        ArgumentError: If they do not fit together, or hold NaN or infinity.

    Example:
        >>> found = Directions(torch.eye(2), torch.tensor([[3.0, 0.0]]))
        >>> found.shares(torch.tensor([[1.0, 1.0]]))
        tensor([[3., 0.]])
    """

    vectors: Float[Tensor, "directions d_model"]
    coefficients: Float[Tensor, "rows _"]

    def __post_init__(self) -> None:
        """Refuse what is no sum of directions."""
        if self.coefficients.shape[1] != len(self.vectors):
            raise ArgumentError(
                f"`coefficients` has {self.coefficients.shape[1]} columns, but there "
                f"are {len(self.vectors)} directions."
            )
        for name in ("vectors", "coefficients"):
            if not bool(torch.isfinite(getattr(self, name)).all()):
                raise ArgumentError(f"`{name}` holds NaN or infinity.")

    def check(self, rows: int, d_model: int) -> None:
        """Refuse directions of another model or text.

        Raises:
            ArgumentError: If shapes are not those of the traced states.
        """
        expected = (rows, d_model)
        found = (len(self.coefficients), self.vectors.shape[1])
        if found != expected:
            raise ArgumentError(
                f"`directions` are for {found[0]} positions of width {found[1]}; this "
                f"trace has {rows} of width {d_model}."
            )

    def at(self, rows: slice) -> "Directions":
        """The same at some of the positions."""
        return Directions(self.vectors, self.coefficients[rows])

    def shares(
        self, gradient: Float[Tensor, "rows d_model"]
    ) -> Float[Tensor, "rows directions"]:
        """Share of every direction, for one gradient per position."""
        pulled = gradient @ self.vectors.to(gradient).T
        return pulled * self.coefficients.to(gradient)
