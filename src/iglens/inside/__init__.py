"""How updates of parts are written: sums over heads, neurons, experts, sources."""

from .attended import Attended
from .directions import Directions
from .frozen_norm import FrozenNorm
from .mixture import Mixture
from .writing import Writing

__all__ = ["Attended", "Directions", "FrozenNorm", "Mixture", "Writing"]
