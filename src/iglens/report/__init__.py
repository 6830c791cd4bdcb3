"""Results for people: sentences, the terminal map, the notebook table; no torch."""
