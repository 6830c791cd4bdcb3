"""How updates of parts are written: sums over heads, neurons, experts, sources."""

from .attended import Attended
from .frozen_norm import FrozenNorm
from .mixture import Mixture
from .writing import Writing

__all__ = ["Attended", "FrozenNorm", "Mixture", "Writing"]
