"""What people write for positions and layers, turned into numbers."""

from collections.abc import Sequence
from numbers import Integral

from ..errors import ArgumentError, ArgumentTypeError


def choose_positions(
    positions: str | Sequence[int], n_prompt: int, n_text: int
) -> list[int]:
    """Indices of predicted tokens.

    Args:
        positions: "answer" (what follows the prompt), "prompt", "all", a slice such
            as "5:9" or "-3:" over the text's tokens, or the indices themselves. The
            first token of a text is predicted by nothing and left out of slices.
        n_prompt: Tokens of the prompt.
        n_text: Tokens of the whole text.

    Raises:
        ArgumentError: If that leaves nothing, or cannot be read.

    Example:
        >>> choose_positions("answer", 5, 8), choose_positions(":3", 5, 8)
        ([5, 6, 7], [1, 2])
    """
    if not isinstance(positions, str):
        return _whole_numbers("positions", positions)
    named = {"answer": slice(n_prompt, None), "prompt": slice(0, n_prompt)}
    if positions == "all":
        chosen = list(range(1, n_text))
    else:
        part = named.get(positions) or _slice("positions", positions)
        chosen = [index for index in range(n_text)[part] if index > 0]
    if not chosen:
        raise ArgumentError(
            f"`positions` {positions!r} leaves nothing to explain in a text of "
            f"{n_text} tokens ({n_prompt} of them the prompt). Generate tokens, give "
            "an `answer` or a `target`, or choose other positions."
        )
    return chosen


def choose_layers(layers: str | Sequence[int], n_layers: int) -> list[int] | None:
    """Layers of the path; None for all.

    Args:
        layers: "all", a list such as "1,5,30", a slice such as "::4" over 0 (the
            embedding) to the last, or the numbers themselves.
        n_layers: Number of blocks.

    Raises:
        ArgumentError: If it cannot be read.

    Example:
        >>> choose_layers("::4", 10), choose_layers("1,5", 10)
        ([0, 4, 8], [1, 5])
    """
    if not isinstance(layers, str):
        return _whole_numbers("layers", layers)
    if layers == "all":
        return None
    if ":" in layers:
        if chosen := list(range(n_layers + 1)[_slice("layers", layers)]):
            return chosen
        raise ArgumentError(
            f"`layers` {layers!r} chooses none of the layers 0 to {n_layers}."
        )
    try:
        return [int(piece) for piece in layers.split(",")]
    except ValueError:
        raise ArgumentError(
            f"`layers` is {layers!r}; write all, a list as 1,5,30 or a slice as ::4."
        ) from None


def _slice(name: str, text: str) -> slice:
    """A slice written as in Python."""
    pieces = text.split(":")
    try:
        numbers = [int(piece) if piece.strip() else None for piece in pieces]
        if len(pieces) not in (2, 3) or numbers[2:] == [0]:
            raise ValueError
        return slice(*numbers)
    except ValueError:
        choices = "answer, prompt, all" if name == "positions" else "all, 1,5,30"
        raise ArgumentError(
            f"`{name}` is {text!r}; write {choices} or a slice as 5:9."
        ) from None


def _whole_numbers(name: str, values: Sequence[int]) -> list[int]:
    """A list of whole numbers."""
    numbers = list(values)
    if any(isinstance(n, bool) or not isinstance(n, Integral) for n in numbers):
        raise ArgumentTypeError(f"`{name}` holds {numbers!r}; it needs whole numbers.")
    return [int(n) for n in numbers]
