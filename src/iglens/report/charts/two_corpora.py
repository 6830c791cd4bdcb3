"""Two runs in pictures: mean differences with their band, and both means."""

from typing import TYPE_CHECKING

import numpy as np

from ...errors import ArgumentError
from ..visible import visible
from .corpus import banded, lines_of_band
from .theme import Chart, Theme, dressed, theme_of, titled
from .words import distinct, unit_words

if TYPE_CHECKING:
    from ...records.run_difference import RunDifference

KINDS = ("difference", "both")


def run_difference_figure(
    found: "RunDifference", kind: str | None = None, *, theme: str = "light"
) -> Chart:
    """See `RunDifference.figure`."""
    dress = theme_of(theme)
    chosen = kind or "difference"
    if chosen not in KINDS:
        raise ArgumentError(f"`kind` is {kind!r}; known are {', '.join(KINDS)}.")
    return dressed(_chart(found, chosen, dress), dress)


def _chart(found: "RunDifference", kind: str, theme: Theme) -> Chart:
    """One of them, of the first unit."""
    group = found.groups[0]
    labels = distinct(map(_short, found.labels))
    best = int(np.nan_to_num(np.abs(group.credits.mean)).argmax())
    models = [visible(str(side.run["model"]["id"])) for side in (found.a, found.b)]
    over = (
        f"a: {models[0]} · b: {models[1]} · {unit_words(group.unit)} · {group.n_pairs} "
        f"pairs from {group.n_prompts} prompts"
    )
    bounds = "Too few prompts for intervals."
    if group.final.bounded:
        bounds = (
            f"Bars: {found.level:.0%} intervals over prompts. Band: {found.level:.0%} "
            "for all steps at once."
        )
    if kind == "both":
        data = lines_of_band(labels, group.a, "a") + lines_of_band(labels, group.b, "b")
        names, head = ["a", "b"], "mean credit"
        title = "What each layer added in both runs, on average"
    else:
        data, names, head = lines_of_band(labels, group.credits, ""), [""], "b less a"
        title = "By how much the credit of each layer differs, on average"
    return titled(
        banded(data, labels, f"{head}, {unit_words(group.unit)}", names, theme),
        title,
        [over, bounds],
        f"{title}. Largest difference: {labels[best]}, "
        f"{group.credits.mean[best]:+.3g} (b less a).",
    )


def _short(label: str) -> str:
    """A step without the module's name and without the word layer."""
    name = label.partition(" (")[0].removesuffix(" of the depth")
    return visible(name.removeprefix("layers ").removeprefix("layer "))
