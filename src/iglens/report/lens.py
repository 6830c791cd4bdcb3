"""What a lens gets right, layer by layer, as aligned text."""

from collections.abc import Mapping
from typing import Any

_GROUPS = (("kl_bits", "KL, bits"), ("bias_bits", "bias, bits"), ("agreement", "top-1"))


def lens_table(evaluation: Mapping[str, Any]) -> str:
    """An evaluation as `LensEvaluation.to_json` gives it, as a table for a terminal.

    Example:
        >>> scores = {"kl_bits": 3.25, "kl_error": 0.1, "bias_bits": 1.5}
        >>> layer = {"layer": 7, "raw": {**scores, "agreement": 0.125}}
        >>> layer["fitted"] = {**layer["raw"], "kl_bits": None}
        >>> about = {"lens": "ridge", "tokens": 9, "documents": 2, "source": "a.txt"}
        >>> print(lens_table({**about, "layers": [layer]}))
        Lens ridge, judged at 9 tokens of 2 documents (a.txt)
        <BLANKLINE>
                   KL, bits          bias, bits            top-1
        layer      raw  fitted       raw  fitted       raw  fitted
            7     3.25     n/a      1.50    1.50     12.5%   12.5%
    """
    heads = "".join(f"{title:^19}" for _, title in _GROUPS)
    names = "".join(f"{'raw':>9}{'fitted':>8} " for _ in _GROUPS)
    lines = [
        f"Lens {evaluation['lens']}, judged at "
        f"{_counted(evaluation['tokens'], 'token')} of "
        f"{_counted(evaluation['documents'], 'document')} ({evaluation['source']})",
        "",
        f"      {heads}".rstrip(),
        f"layer{names}".rstrip(),
    ]
    for entry in evaluation["layers"]:
        cells = (
            f"{_number(entry['raw'][name], name):>9}"
            f"{_number(entry['fitted'][name], name):>8} "
            for name, _ in _GROUPS
        )
        lines.append(f"{entry['layer']:>5}{''.join(cells)}".rstrip())
    return "\n".join(lines)


def _counted(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _number(value: float | None, name: str) -> str:
    """A number in a few characters; what is none is marked."""
    if value is None:
        return "n/a"
    return f"{value:.1%}" if name == "agreement" else f"{value:.2f}"
