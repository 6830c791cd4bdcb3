"""How the updates of parts are written: sums over heads, neurons and source tokens."""

from .attended import Attended
from .frozen_norm import FrozenNorm
from .writing import Writing

__all__ = ["Attended", "FrozenNorm", "Writing"]
