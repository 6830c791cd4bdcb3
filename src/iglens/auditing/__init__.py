"""The causal audit: which layers matter when they are taken out.

The room is named apart from its function, which importing it would otherwise hide.
"""

from .texts import audit

__all__ = ["audit"]
