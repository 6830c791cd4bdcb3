r"""Direct Logit Attribution: what every update writes into the target's logit.

With the final norm's scale frozen at the last state the logit is a linear function of
it, and the last state is a sum of updates: the credit of an update `u` is `<g, u>` with

    g = C G^T (w_y - mean_v w_v) / r(h_L).

Logits are centred by their mean over the vocabulary, for a constant added to all of
them changes no probability. The credits add up to the change of the frozen logit. The
softmax is not in the sum.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..attribution.path import Level
from ..errors import ArgumentError, UnsupportedModelError
from ..inside import Writing
from ..inside.parted import Parted
from ..readout import LinearReadout
from ..readout.linear import identity
from ..records.comparison import Contributions
from .case import AbstractMethod, Case
from .frozen import FrozenFinalNorm

_BLOCK = 4096
"""Rows of the unembedding that are averaged together."""

_BEFORE = (
    "of the logits before what this model does to them after its head; what that "
    "changes is in no credit"
)

Part = tuple[int, str, float]
"""Layer, name and credit."""


@dataclass(frozen=True)
class LayerDLA(AbstractMethod):
    """The update of every block."""

    name: str = "dla"
    title: str = "DLA per layer"

    def __call__(self, case: Case) -> Contributions:
        """`<g, h_l - h_(l-1)>` of every layer."""
        gradient, notes = _gradient(case)
        updates = case.states.double().diff(dim=0)
        credits = (updates @ gradient).tolist()
        parts = [(at + 1, "block", credit) for at, credit in enumerate(credits)]
        return _contributions(case, gradient, parts, notes)


@dataclass(frozen=True)
class SublayerDLA(AbstractMethod):
    """The updates of attention, MLP, and whatever else a block adds."""

    name: str = "dla-sublayer"
    title: str = "DLA per sublayer"
    by: ClassVar[Level] = "sublayer"

    def __call__(self, case: Case) -> Contributions:
        """`<g, u>` of every part of every block that can be taken apart."""
        inside = case.trace.inside
        gradient, notes = _gradient(case)
        parts = [
            (layer, name, float(update @ gradient))
            for layer in case.layers
            for name, update in _updates(case, inside.get(layer), layer)
        ]
        return _contributions(case, gradient, parts, notes)


@dataclass(frozen=True)
class HeadDLA(AbstractMethod):
    """The update of attention shared over its heads, other parts as they are."""

    name: str = "dla-head"
    title: str = "DLA per head"
    by: ClassVar[Level] = "head"

    def __call__(self, case: Case) -> Contributions:
        """`<g, W_O^h z_h>` of every head; biases and offsets are parts of their own."""
        gradient, notes = _gradient(case)
        parts: list[Part] = []
        for layer in case.layers:
            inside = case.trace.inside.get(layer)
            for at, (name, update) in enumerate(_updates(case, inside, layer)):
                written = None if inside is None else inside.writings[at]
                if isinstance(written, Writing) and written.n_heads is not None:
                    parts += _heads(layer, written, gradient[None])
                else:
                    parts.append((layer, name, float(update @ gradient)))
        if not any(name.startswith("head") for _, name, _ in parts):
            raise UnsupportedModelError(
                "No block of this model has heads that can be told apart."
            )
        return _contributions(case, gradient, parts, notes)


def _heads(layer: int, written: Writing, gradient: Tensor) -> list[Part]:
    """Every head, and what else the part adds."""
    heads = written.heads(gradient)
    offsets = written.offsets(gradient)
    rest = {"rest": written.rest(gradient, heads)}
    named = {f"head {at}": heads[:, at] for at in range(heads.shape[1])}
    return [
        (layer, name, float(value)) for name, value in (named | offsets | rest).items()
    ]


def _updates(
    case: Case, inside: Parted | None, layer: int
) -> list[tuple[str, Float[Tensor, " d_model"]]]:
    """What every part of a block adds to the state."""
    start, end = case.states[layer - 1].double(), case.states[layer].double()
    if inside is None:
        return [("block", end - start)]
    given = list(inside.between[:, 0].double())
    if inside.kind == "sequential":
        ends = torch.stack([start, *given, end])
        return list(zip(inside.names, ends.diff(dim=0), strict=True))
    rest = end - start - sum(given, torch.zeros_like(end))
    return list(zip(inside.names, [*given, rest], strict=True))


def _gradient(case: Case) -> tuple[Float[Tensor, " d_model"], tuple[str, ...]]:
    """`g`, in float64, and what must be said of it.

    Raises:
        ArgumentError: If the target is no single token.
    """
    if case.target.kind != "token":
        raise ArgumentError(
            f"Direct Logit Attribution is of one token's logit; {case.target.name!r} "
            "is none."
        )
    readout = case.linear
    unembed, _ = readout.weights()
    factor = _factor(readout)
    notes = () if factor is not None else (f"Credits are {_BEFORE}.",)
    row = unembed[case.target.ids[0]].double() - _mean(unembed)
    case.evaluations.head += 1  # the unembedding was gone through once
    norm = FrozenFinalNorm.of(case)
    gradient = norm.form.transposed(row[None])[0] / norm.scale
    return gradient * (1.0 if factor is None else factor), notes


def _mean(unembed: Float[Tensor, "vocab d_head"]) -> Float[Tensor, " d_head"]:
    """The mean row, in float64."""
    total = sum(
        (rows.double().sum(0) for rows in unembed.split(_BLOCK)),
        torch.zeros_like(unembed[0], dtype=torch.float64),
    )
    return total / len(unembed)


def _factor(readout: LinearReadout) -> float | None:
    """What post-processing multiplies logits with; None if it does anything else."""
    if readout.post is identity:
        return 1.0
    probes = torch.tensor([1.0, -3.0, 40.0, 1e3], dtype=torch.float64)
    ratio = readout.post(probes.clone()) / probes
    same = bool(torch.allclose(ratio, ratio[0].expand(4), rtol=1e-9, atol=0.0))
    return float(ratio[0]) if same else None


def _contributions(
    case: Case, gradient: Tensor, parts: list[Part], notes: tuple[str, ...]
) -> Contributions:
    """The record; the total is the change of the frozen, centred logit."""
    states = case.states.double()
    layers, names, credits = zip(*parts, strict=True)
    return Contributions(
        "logit",
        layers,
        names,
        np.array(credits),
        total=float((states[-1] - states[0]) @ gradient),
        start=case.start(),
        notes=notes,
    )
