"""The charts of the page: the same builders, to be filled by the page itself."""

from functools import cache
from typing import Any

from ..charts.bars import bar_chart
from ..charts.heat import Look, heat
from ..charts.theme import THEMES, Chart, Theme, dressed
from ..charts.trajectory import trajectory_chart
from ..charts.waterfall import waterfall_chart

DATA = "lines"
"""Name of the data set that the page hands in."""


@cache
def templates() -> dict[str, dict[str, Any]]:
    """Vega-Lite specifications without data, by theme and name."""
    return {
        name: {what: _spec(chart, theme) for what, chart in _charts(theme).items()}
        for name, theme in THEMES.items()
    }


def _charts(theme: Theme) -> dict[str, Chart]:
    """One chart of every kind that the page draws."""
    look = Look(
        columns="token",
        rows="layer",
        legend="credit",
        names=([], []),
        domain=(-1.0, 1.0),
        digits=True,
        key=False,
    )
    return {
        "map": heat(DATA, look, theme),
        "waterfall": waterfall_chart(DATA, "", 30, theme),
        "rivals": trajectory_chart(DATA, [], [], theme),
        "bars": bar_chart(DATA, "", 10, theme),
    }


def _spec(chart: Chart, theme: Theme) -> dict[str, Any]:
    """The chart as a page wants it: without a frame of its own."""
    spec: dict[str, Any] = dressed(chart, theme).to_dict(validate=False)
    spec["background"] = "transparent"
    spec["config"]["padding"] = 4
    return spec
