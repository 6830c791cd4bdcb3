"""The paper's argument and its limits, measured again: `python -m reproduction`."""
