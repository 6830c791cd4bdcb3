"""The pictures of an attribution, by name."""

from collections.abc import Callable

from ...errors import ArgumentError
from ...records import Attribution
from .bars import components_figure
from .heat import credit_map, level_map
from .inside import head_map, source_map
from .onsets import onset_histogram
from .theme import Chart, Theme, dressed, theme_of
from .trajectory import trajectory
from .waterfall import waterfall

OF_ALL: dict[str, Callable[[Attribution, Theme], Chart]] = {
    "map": credit_map,
    "levels": level_map,
    "onsets": onset_histogram,
}
"""Pictures of all rows together."""

OF_ONE: dict[str, Callable[[Attribution, int, Theme], Chart]] = {
    "waterfall": waterfall,
    "trajectory": trajectory,
    "components": components_figure,
    "heads": head_map,
    "sources": source_map,
}
"""Pictures of one row."""

KINDS = (*OF_ALL, *OF_ONE)


def attribution_figure(
    result: Attribution, kind: str | None = None, *, row: int = 0, theme: str = "light"
) -> Chart:
    """See `Attribution.figure`."""
    dress = theme_of(theme)
    if not result.n_rows:
        raise ArgumentError("This result has no rows, so there is nothing to draw.")
    chosen = kind or ("waterfall" if result.n_rows == 1 else "map")
    if chosen in OF_ALL:
        return dressed(OF_ALL[chosen](result, dress), dress)
    if chosen not in OF_ONE:
        raise ArgumentError(f"`kind` is {kind!r}; known are {', '.join(KINDS)}.")
    if not -result.n_rows <= row < result.n_rows:
        raise ArgumentError(
            f"`row` is {row}, but this result has {result.n_rows} rows, from 0."
        )
    return dressed(OF_ONE[chosen](result, row % result.n_rows, dress), dress)
