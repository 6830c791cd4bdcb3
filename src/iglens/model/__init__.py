"""The only room that knows Transformers: from a model to verified traces."""
