"""Every kind of model by its name."""

from collections.abc import Callable
from functools import partial

from .mechanisms import MECHANISMS, Planted, planted
from .trained import NAME, trained

KINDS: dict[str, Callable[[int], Planted]] = {
    **{name: partial(planted, name) for name in MECHANISMS},
    NAME: trained,
}
"""Takes a seed; in the order of the table."""
