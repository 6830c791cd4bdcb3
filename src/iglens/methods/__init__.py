"""The relatives of IG-Lens, one method per file, on the same token of the same text.

Every method takes a `Case` and gives `Contributions`, which sum to something, or a
`Reading`, a level per layer that has no total. `compare` runs several and counts what
each one cost.
"""

from .case import AbstractMethod, Case
from .registry import METHODS, chosen_methods
from .side_by_side import compare, compared

__all__ = [
    "METHODS",
    "AbstractMethod",
    "Case",
    "chosen_methods",
    "compare",
    "compared",
]
