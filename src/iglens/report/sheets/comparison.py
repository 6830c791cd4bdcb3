"""Methods side by side, as a page."""

from functools import partial

from ...records.comparison import Comparison
from .. import comparison as text
from ..charts import Chart
from ..page.checks import Check, origin
from ..text import format_level, target_name
from ..visible import visible
from .sheet import Drawing, Numbers, Sheet

CLOSE = 1e-3
"""Credits count as adding up if their sum misses the change by no more."""


def comparison_sheet(found: Comparison) -> Sheet:
    """The page of a comparison."""
    head, *how = text.sentences(found)
    heads, lines = text.by_layer(found)
    return Sheet(
        question=f"How do methods differ on {target_name(found.target)}?",
        model=found.provenance.model.id,
        says=(_answer(found), head),
        drawings=(Drawing("Every method, layer by layer", partial(_chart, found)),),
        numbers=(
            Numbers(
                "Methods", text.HEADS, [*map(text.cells, found.table)], tuple(text.LEFT)
            ),
            Numbers("Each layer, in the unit of the method", heads, lines, shut=True),
        ),
        checks=(_readout(found),),
        reading=(*how, *text.notes(found)),
        card=(),
        origin=tuple(origin(found.provenance)),
        warnings=tuple(found.warnings),
    )


def _chart(found: Comparison, theme: str) -> Chart:
    """The panels."""
    return found.figure(theme=theme)


def _answer(found: Comparison) -> str:
    """How many methods account for the change, in one sentence."""
    additive = [one for one in found.table if one.kind == "contributions"]
    close = [one for one in additive if abs(one.error) <= CLOSE]
    peaks = sorted({one.peak for one in found.table if one.peak is not None})
    level = format_level(found.final, "probability")
    said = (
        f"The model gives {target_name(found.target)} {level}. Credits of {len(close)} "
        f"of {len(additive)} methods that promise a sum add up to the change from the "
        f"embedding within {CLOSE:g}"
    )
    if not peaks:
        return f"{said}."
    if len(peaks) == 1:
        return f"{said}; all methods point at layer {peaks[0]} most."
    named = ", ".join(map(str, peaks))
    return f"{said}; what they point at most differs: layers {visible(named)}."


def _readout(found: Comparison) -> Check:
    """How far the readout is from the model's own output."""
    return Check(
        "readout",
        None,
        f"{found.fidelity:.1g}",
        "The total variation between what is read from the last state and what the "
        "model itself says, over the whole vocabulary; refused beyond its tolerance.",
    )
