"""What a corpus costs: a model of it, measured here and projected to larger models."""
