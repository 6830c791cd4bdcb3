"""Other people's tools, each in an environment of its own, on the same tokens."""
