"""How deep tokens become readable: where the depths of all rows lie."""

from collections import Counter

import altair as alt

from ...depths import Interval
from ...records import Attribution
from .theme import Chart, Theme, source, titled
from .words import method_words

DEPTHS = {
    "commit": "half of the change is there to stay",
    "onset_net": "half of the change is there for the first time",
    "onset_mass": "half of all movement is done",
    "prediction_depth": "the target is, and stays, the likeliest token",
}
"""The depths, and what they say."""


def onset_histogram(result: Attribution, theme: Theme) -> Chart:
    """Histograms of every depth over the rows, one below the other.

    Depths are intervals between layers of the path; a row counts at the end of its.
    """
    layers = list(dict.fromkeys([0, *result.by_layer.layers]))
    data, missing = _lines(result)
    panels = [
        _panel([line for line in data if line["depth"] == name], words, layers, theme)
        for name, words in DEPTHS.items()
    ]
    gone = ", ".join(f"{n} without {name}" for name, n in missing.items() if n)
    told = "; ".join(f"{name}: {_middle(result, name)}" for name in DEPTHS)
    return titled(
        alt.vconcat(*panels, spacing=14),
        f"After which layer {result.n_rows} tokens became readable",
        [method_words(result), *([f"Rows that have none: {gone}."] if gone else [])],
        f"Histograms over {result.n_rows} rows. Median layers: {told}.",
    )


def _found(result: Attribution, name: str) -> list[Interval]:
    """The rows' intervals, where there is one."""
    intervals = (getattr(depths, name) for depths in result.depths)
    return [interval for interval in intervals if interval is not None]


def _lines(result: Attribution) -> tuple[list[dict[str, object]], dict[str, int]]:
    """Counts by depth and layer, and how many rows have no such depth."""
    data: list[dict[str, object]] = []
    missing = {}
    for name in DEPTHS:
        ends = Counter(interval.upto for interval in _found(result, name))
        data += [{"depth": name, "layer": at, "n": n} for at, n in ends.items()]
        missing[name.replace("_", " ")] = result.n_rows - sum(ends.values())
    return data, missing


def _middle(result: Attribution, name: str) -> str:
    """The median of a depth."""
    ends = sorted(interval.upto for interval in _found(result, name))
    return str(ends[len(ends) // 2]) if ends else "none"


def _panel(
    data: list[dict[str, object]], words: str, layers: list[int], theme: Theme
) -> alt.Chart:
    """One histogram."""
    return (
        alt.Chart(source(data), height=70, width=520)
        .mark_bar(aria=False, color=theme.gain)
        .encode(
            x=alt.X(
                "layer:O",
                title=None,
                scale=alt.Scale(domain=layers),
                axis=alt.Axis(labelAngle=0, labelOverlap="greedy", ticks=False),
            ),
            y=alt.Y(
                "n:Q",
                title="tokens",
                axis=alt.Axis(tickCount=3, tickMinStep=1, domain=False, ticks=False),
            ),
            tooltip=[alt.Tooltip("layer:O"), alt.Tooltip("n:Q", title="tokens")],
        )
        .properties(title=alt.TitleParams(text=words, fontSize=11, fontWeight="normal"))
    )
