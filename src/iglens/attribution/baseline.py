"""Where the path starts: one state per row, "what is said before any layer".

`p_base` is always part of the result. With the embedding baseline it is the readout
of the token's own embedding; every other baseline adds the embedding's segment, after
which nothing depends on the baseline any more.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ArgumentError, ArgumentTypeError
from ..trace import Trace

BaselineKind = Literal["embedding", "zero", "mean", "paper-mean"]

BASELINES: tuple[BaselineKind, ...] = get_args(BaselineKind)

LARGE_BASELINE = 0.05
"""A target this probable at the baseline hides part of the answer."""


@dataclass(frozen=True, eq=False)
class Baseline:
    """The first point of the path.

    Attributes:
        kind: One of `BASELINES`, "vector", or a name of one's own, such as "corpus".
        states: One state per position; None for "embedding", the path's own h_0.
        through_embedding: Whether h_0 follows as the second point.
    """

    kind: str
    states: Float[Tensor, "rows d_model"] | None
    through_embedding: bool = True


BaselineLike = str | Tensor | Baseline
"""A baseline by name, a vector, or one that was prepared."""


def resolve_baseline(
    trace: Trace, baseline: BaselineLike, layers: tuple[int, ...]
) -> Baseline:
    """The baseline of a trace, by name or as a vector.

    Args:
        trace: The states.
        baseline: "embedding" (h_0), "zero", "mean" (of the embeddings up to the
            predicting token), "paper-mean" (of all tokens' states at the lowest
            chosen layer, as the published script has it), or a vector of d_model
            numbers, one for all rows or one per row; or a `Baseline`.
        layers: Layers of the path, 0 first.

    Raises:
        ArgumentError: If the name is unknown, or the vector has another width or
            is not finite.
        ArgumentTypeError: If it is neither.
    """
    check_baseline(baseline)
    if isinstance(baseline, Baseline):
        if baseline.states is None:
            return baseline
        return replace(baseline, states=_vector(trace, baseline.states))
    if isinstance(baseline, Tensor):
        return Baseline("vector", _vector(trace, baseline))
    if baseline == "embedding":
        return Baseline("embedding", None)
    if baseline == "zero":
        return Baseline("zero", torch.zeros_like(trace.states[0]))
    if baseline == "mean":
        return Baseline("mean", trace.causal_mean)
    lowest = trace.layers.index(layers[1])
    mean = trace.text_mean[lowest].expand_as(trace.causal_mean)
    return Baseline("paper-mean", mean, through_embedding=False)


def check_baseline(baseline: object) -> None:
    """Refuse what is neither the name of a baseline nor a vector.

    Raises:
        ArgumentError: If the name is unknown.
        ArgumentTypeError: If it is neither.
    """
    if isinstance(baseline, Tensor | Baseline):
        return
    if not isinstance(baseline, str):
        raise ArgumentTypeError(
            f"`baseline` is a {type(baseline).__name__}; pass a tensor of as many "
            f"numbers as a state has or one of {list(BASELINES)}."
        )
    if baseline not in BASELINES:
        raise ArgumentError(
            f"`baseline` is {baseline!r}; known are {', '.join(BASELINES)}, or a "
            "vector."
        )


def _vector(trace: Trace, vector: Tensor) -> Float[Tensor, "rows d_model"]:
    """A given vector, one per row."""
    rows, width = trace.states.shape[1:]
    if tuple(vector.shape) not in {(width,), (rows, width)}:
        raise ArgumentError(
            f"`baseline` has shape {tuple(vector.shape)}; this model needs ({width},) "
            f"or ({rows}, {width})."
        )
    if not bool(torch.isfinite(vector).all()):
        raise ArgumentError("`baseline` holds NaN or infinity.")
    vector = vector.to(device=trace.states.device, dtype=trace.states.dtype)
    return vector.expand(rows, width)
