"""What people type, turned into what the library takes; refused in one line."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ArgumentError

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ..attribution.estimator import Rule
    from ..attribution.path import Level
    from ..model.generate import Sampling
    from ..records import Unit


def parse_prompt(prompt: str) -> str:
    """The prompt, from stdin if it is a dash; one final line end is cut there."""
    text = sys.stdin.read().removesuffix("\n") if prompt == "-" else prompt
    if not text:
        raise ArgumentError("`PROMPT` is empty: there is nothing to explain.")
    return text


def parse_sampling(
    sample: bool, temperature: float, top_p: float, seed: int
) -> "Sampling | None":
    """How to sample, if at all."""
    if not sample:
        if (temperature, top_p, seed) != (1.0, 1.0, 0):
            raise ArgumentError(
                "`--temperature`, `--top-p` and `--seed` need `--sample`; without it "
                "the continuation is greedy."
            )
        return None

    from ..model.generate import Sampling

    return Sampling(temperature, top_p, seed)


def parse_precision(name: str | None) -> "torch.dtype | None":
    """The readout's dtype by its name."""
    if name is None:
        return None
    if name not in ("float32", "float64"):
        raise ArgumentError(f"`--precision` is {name!r}; use float32 or float64.")
    import torch

    return torch.float32 if name == "float32" else torch.float64


def parse_baselines(texts: list[str] | None) -> "list[str | np.ndarray]":
    """Baselines by name, or as vectors from files; the embedding if there are none."""
    return [_baseline(text) for text in texts or ["embedding"]]


def _baseline(text: str) -> "str | np.ndarray":
    """A baseline by its name, or a vector from a file."""
    if not text.startswith("vector:"):
        return text
    import numpy as np

    path = Path(text.removeprefix("vector:"))
    try:
        vector = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ArgumentError(
            f"`--baseline` {text!r} cannot be read as a .npy file: {error}."
        ) from error
    if not isinstance(vector, np.ndarray) or vector.dtype.kind != "f":
        raise ArgumentError(f"`--baseline` {text!r} holds no array of real numbers.")
    return vector


def parse_unit(name: str | None) -> "Unit | None":
    """A unit by its name; None for the model's usual one."""
    if name is None:
        return None
    from ..records import UNITS

    for unit in UNITS:
        if unit == name:
            return unit
    raise ArgumentError(f"`--unit` is {name!r}; known are {', '.join(UNITS)}.")


def parse_by(name: str) -> "Level":
    """A level by its name."""
    from ..attribution.path import check_level

    return check_level(name)


def parse_rule(name: str) -> "Rule":
    """A rule of the gradient estimator by its name."""
    from ..attribution.estimator import RULES

    for rule in RULES:
        if rule == name:
            return rule
    raise ArgumentError(f"`--rule` is {name!r}; known are {', '.join(RULES)}.")
