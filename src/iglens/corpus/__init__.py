"""From one prompt to a corpus: a store that survives, and statistics with intervals."""

from .difference import difference_of_runs
from .items import Columns
from .run import Outcome, run
from .selection import Selection
from .store import Store
from .summary import summarise, write_summary

__all__ = [
    "Columns",
    "Outcome",
    "Selection",
    "Store",
    "difference_of_runs",
    "run",
    "summarise",
    "write_summary",
]
