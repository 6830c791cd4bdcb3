"""Small transformers that do one known thing, and what every method says of them."""
