"""Pictures: one builder for each, from a record to a Vega-Altair chart.

A builder is a pure function of a record. `figure` finds it by name and puts the theme
on; the same builders, given the name of a data set instead of lines, make the charts
that the report fills from its own numbers.
"""

from .answer import answer_figure
from .attribution import KINDS, attribution_figure
from .audit import audit_figure
from .difference import difference_figure
from .effects import effects_figure
from .exchange import flow_figure, promotion_figure
from .interaction import interaction_figure
from .methods import comparison_figure
from .sensitivity import sensitivity_figure
from .theme import Chart

__all__ = [
    "KINDS",
    "Chart",
    "answer_figure",
    "attribution_figure",
    "audit_figure",
    "comparison_figure",
    "difference_figure",
    "effects_figure",
    "flow_figure",
    "interaction_figure",
    "promotion_figure",
    "sensitivity_figure",
]
