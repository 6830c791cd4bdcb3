"""The convenience function: from a prompt to an attribution."""

from .explain import explain

__all__ = ["explain"]
