"""From one prompt to a corpus: a store that survives, and statistics with intervals."""

from .items import Columns
from .run import Outcome, run
from .selection import Selection
from .store import Store

__all__ = ["Columns", "Outcome", "Selection", "Store", "run"]
