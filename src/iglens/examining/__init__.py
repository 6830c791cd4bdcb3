"""Is a model read exactly, how was that found out, and what does it cost?

`examine` puts together what verification knows, measures what it does not, and gives a
plain record, also of a model that is refused. Nothing is decided here: block sizes,
tolerances and the verdict come from the code that reads and verifies.
"""

from .examination import examine

__all__ = ["examine"]
