"""What needs model and attribution together: from a prompt to a result.

The room is named apart from its function, which importing it would otherwise hide.
"""

from .prompt import explain

__all__ = ["explain"]
