"""The same question from several starts."""

from collections.abc import Sequence
from typing import Any

from ..records import Attribution
from ..records.ensemble import Sensitivity, averaged
from ..trace import Trace
from .attribute import attribute
from .baseline import Baseline, BaselineLike
from .rows import Targets


def attribute_from(
    trace: Trace,
    targets: Targets = None,
    *,
    baselines: Sequence[BaselineLike],
    **options: Any,
) -> list[Attribution]:
    """One attribution per baseline, all with the embedding's own segment.

    Args:
        trace: The states.
        targets: As in `attribute`.
        baselines: Where to start; "paper-mean" has no embedding on its path and fits
            no comparison.
        options: Of `attribute`.
    """
    starts = [
        Baseline("embedding", trace.states[0]) if start == "embedding" else start
        for start in (_unmasked(item) for item in baselines)
    ]
    return [attribute(trace, targets, baseline=start, **options) for start in starts]


def _unmasked(baseline: BaselineLike) -> BaselineLike:
    """The name, where a prepared baseline is just the embedding."""
    plain = isinstance(baseline, Baseline) and baseline.states is None
    return "embedding" if plain else baseline


def attribute_averaged(
    trace: Trace,
    targets: Targets = None,
    *,
    baselines: Sequence[BaselineLike],
    **options: Any,
) -> Attribution:
    """The mean over several baselines; credits add up to the change from their mean."""
    if len(baselines) == 1:
        return attribute(trace, targets, baseline=baselines[0], **options)
    return averaged(attribute_from(trace, targets, baselines=baselines, **options))


def sensitivity(
    trace: Trace,
    targets: Targets = None,
    *,
    baselines: Sequence[BaselineLike] = ("embedding", "zero", "mean"),
    **options: Any,
) -> Sensitivity:
    """What depends on the baseline: the level of the start, and the first segment.

    Args:
        trace: The states.
        targets: As in `attribute`.
        baselines: Where to start.
        options: Of `attribute`.
    """
    return Sensitivity.of(
        attribute_from(trace, targets, baselines=baselines, **options)
    )
