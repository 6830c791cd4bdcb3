"""The model as a function of gates on its blocks: skipped, and opened together.

The room is named apart from its function, which importing it would otherwise hide.
"""

from .beside import gates, gates_of
from .path import TOLERANCE, GatePath, gate_path
from .skipping import effects_without, gated_results
from .subject import AbstractGated, Done, Gated

__all__ = [
    "TOLERANCE",
    "AbstractGated",
    "Done",
    "GatePath",
    "Gated",
    "effects_without",
    "gate_path",
    "gated_results",
    "gates",
    "gates_of",
]
