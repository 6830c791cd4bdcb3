"""Means and covariances of two streams of vectors, exact in any chunks."""

import torch
from jaxtyping import Float
from torch import Tensor


class Moments:
    """Float64 moments of states `x` of a layer and `y` of the last one.

    Chunks are merged by the update of Chan, Golub and LeVeque: each is centred at its
    own mean, so nothing is lost to large means.

    Attributes:
        n: Rows seen.
        mean_x: Mean of `x`.
        mean_y: Mean of `y`.
        xx: Sum of outer products of the centred `x`.
        xy: Sum of outer products of centred `x` and `y`.

    References:
        Chan, Golub and LeVeque (1983), Algorithms for computing the sample variance.
    """

    def __init__(self, d_model: int, device: torch.device | str = "cpu") -> None:
        """Start with no rows."""
        self.n = 0
        self.xx = torch.zeros(d_model, d_model, dtype=torch.float64, device=device)
        self.xy = torch.zeros_like(self.xx)
        self.mean_x = torch.zeros_like(self.xx[0])
        self.mean_y = torch.zeros_like(self.xx[0])

    def add(
        self, x: Float[Tensor, "rows d_model"], y: Float[Tensor, "rows d_model"]
    ) -> None:
        """Take in some rows."""
        if not len(x):
            return
        x, y = x.to(self.xx), y.to(self.xx)
        mean_x, mean_y = x.mean(0), y.mean(0)
        x = x - mean_x
        self.xx.addmm_(x.T, x)
        self.xy.addmm_(x.T, y - mean_y)
        total = self.n + len(x)
        apart_x, apart_y = mean_x - self.mean_x, mean_y - self.mean_y
        weight = self.n * len(x) / total
        self.xx.addr_(apart_x, apart_x, alpha=weight)
        self.xy.addr_(apart_x, apart_y, alpha=weight)
        self.mean_x += apart_x * (len(x) / total)
        self.mean_y += apart_y * (len(x) / total)
        self.n = total

    @staticmethod
    def bytes_of(d_model: int) -> int:
        """Memory that moments of this width take."""
        return 2 * 8 * d_model * (d_model + 1)
