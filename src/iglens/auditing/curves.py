"""Deletion and insertion: segments taken out, or put back, in some order."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float

from ..gating import AbstractGated

RANDOM_ORDERS = 4
"""Orders whose mean is the random baseline."""

CURVES = ("deletion", "insertion")


def runs_of_curves(n_columns: int, n_orders: int) -> int:
    """Forward passes that `curves` takes for one text."""
    return len(CURVES) * (n_orders + RANDOM_ORDERS) * (n_columns + 1)


def curves(
    subject: AbstractGated,
    numbers: Mapping[str, Float[np.ndarray, " columns"]],
    seed: int,
) -> dict[tuple[str, str], Float[np.ndarray, " steps"]]:
    """Levels along both curves for every order, and for random ones.

    Args:
        subject: The level as a function of gates.
        numbers: By name, the numbers that order the columns, largest first.
        seed: What random orders are made from.

    Returns:
        Levels after 0, 1, … columns, by kind of curve and name of order.
    """
    generator = np.random.default_rng(seed)
    orders = {name: [np.argsort(-own, kind="stable")] for name, own in numbers.items()}
    orders["random"] = [
        generator.permutation(subject.n_columns) for _ in range(RANDOM_ORDERS)
    ]
    found = {}
    for kind in CURVES:
        for name, several in orders.items():
            gates = torch.cat([_gates(order, kind) for order in several])
            levels = subject.levels(gates).reshape(len(several), -1)
            found[kind, name] = levels.mean(0).numpy()
    return found


def _gates(order: np.ndarray, kind: str) -> Float[torch.Tensor, "steps columns"]:
    """Gates after every step: 0 for what is out."""
    place = torch.from_numpy(np.argsort(order))  # when each column has its turn
    taken = place[None] < torch.arange(len(order) + 1)[:, None]
    return (taken if kind == "insertion" else ~taken).float()
