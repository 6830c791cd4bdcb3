"""The report: one HTML file with a result, its charts and everything they need."""

from .document import html_page

__all__ = ["html_page"]
