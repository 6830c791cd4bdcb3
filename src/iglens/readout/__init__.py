"""What the model's own head would predict from one residual state.

The readout has no attention and no MLP: it is a function of one vector. `abstract`
says what every readout can do, `linear` and `called` are the two kinds there are,
`streamed` reads any number of states without holding a `points x vocab` array,
`observers` are what can be watched on the way, `pruning` leaves out what is certified
to be below a tolerance, `target` turns what was read into
levels, and `fidelity` judges a readout against the model's own logits.
"""

from .abstract import AbstractProjection, AbstractReadout, LogitBlock
from .called import CalledReadout
from .linear import LinearReadout
from .pruning import TOLERANCE
from .streamed import MEMORY_BUDGET, TokenLogits, read

__all__ = [
    "MEMORY_BUDGET",
    "TOLERANCE",
    "AbstractProjection",
    "AbstractReadout",
    "CalledReadout",
    "LinearReadout",
    "LogitBlock",
    "TokenLogits",
    "read",
]
