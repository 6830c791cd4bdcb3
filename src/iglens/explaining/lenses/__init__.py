"""Lenses: fitted, polished, judged, kept in files."""
