"""Gradients of a level, averaged along straight segments, with a certificate."""
