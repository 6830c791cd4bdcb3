"""Strict JSON values: what NaN and infinity become, and how that is marked.

JSON has no NaN and no infinity. They are written as null, and the flags of the written
form name every cell that this happened to.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

from ..records import Attribution, Flag


def plain(value: object) -> Any:
    """A value made of dicts, lists, strings, finite numbers, booleans and null.

    What is none of these becomes its text: a result of a long run is not lost over a
    setting that JSON has no word for.
    """
    match value:
        case None | bool() | str():
            return value
        case Integral():
            return int(value)
        case Real():
            return float(value) if np.isfinite(float(value)) else None
        case Mapping():
            return {str(key): plain(entry) for key, entry in value.items()}
        case list() | tuple():
            return [plain(entry) for entry in value]
        case _:
            return str(value)


def nulled(array: np.ndarray) -> list[Any]:
    """The array as nested lists, with None for every number that is not finite."""
    values = array.astype(object)
    values[~np.isfinite(array)] = None
    return values.tolist()


@dataclass(frozen=True)
class _Watched:
    """An array whose non-finite cells have to be flagged.

    Attributes:
        name: Field of the result.
        offset: Point of its first column; None if it has one value per row.
        nan_is_absent: NaN says "not computed" here, which is nothing odd.
    """

    name: str
    offset: int | None
    nan_is_absent: bool = False


_WATCHED = (
    _Watched("levels", 0),
    _Watched("credits", 1),
    _Watched("lens_kl", 0, nan_is_absent=True),
    _Watched("top_probabilities", 0, nan_is_absent=True),
    _Watched("model_value", None),
    _Watched("fidelity", None),
    _Watched("log_fidelity", None),
)


def written_flags(attribution: Attribution) -> tuple[Flag, ...]:
    """The flags of a result, and one for every cell the JSON form has to null.

    A cell is a row and a point (for a credit the point its segment ends at), or a row
    and None for what a row has one of. A cell that is flagged already gets no second
    flag. What is derived (`baseline`, `final`, `completeness`, `precision_gap`) is
    odd only where one of its parts is, and is flagged there.
    """
    flagged = {(flag.row, flag.point) for flag in attribution.flags}
    seen: dict[tuple[int, int | None], list[str]] = {}
    for watched in _WATCHED:
        for row, point, value in _odd_cells(attribution, watched):
            seen.setdefault((row, point), []).append(f"{watched.name} is {value}")
    added = (
        Flag(row, point, "non_finite_value", ", ".join(dict.fromkeys(details)))
        for (row, point), details in seen.items()
        if (row, point) not in flagged
    )
    return (*attribution.flags, *added)


def _odd_cells(
    attribution: Attribution, watched: _Watched
) -> Iterator[tuple[int, int | None, float]]:
    """Row, point and value of every number that is not finite."""
    array = getattr(attribution, watched.name)
    odd = np.isinf(array) if watched.nan_is_absent else ~np.isfinite(array)
    for cell in np.argwhere(odd).tolist():
        point = None if watched.offset is None else cell[1] + watched.offset
        yield cell[0], point, float(array[tuple(cell)])
