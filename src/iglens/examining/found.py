"""What discovery found, in words: the blocks, the stream, the tail."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..model.stream import Stream
from ..model.structure import Place
from ..model.tail import Operation, Step, Tail, describe
from ..model.verify import Verified
from ..readout import LinearReadout
from ..records.findings import HeadFacts, LayerFacts, NormFacts, ReadoutFacts
from .norm import norm_facts


def layer_facts(model: nn.Module, stream: Stream) -> LayerFacts:
    """Where the residual stream runs."""
    return LayerFacts(
        container=stream.container,
        n_layers=stream.n_layers,
        n_modules=len(set(stream.blocks)),
        first=stream.names[0],
        last=stream.names[-1],
        classes=tuple(dict.fromkeys(type(block).__name__ for block in stream.blocks)),
        chained=stream.chained,
        start=_start(model, stream),
        enters=_together([_argument(place) for place in stream.enter]),
        leaves=_together([_output(place) for place in stream.leave]),
        axes=_axes(stream),
        prefix=stream.prefix,
        repeat=stream.repeat,
        d_model=stream.width,
    )


def readout_facts(model: nn.Module, verified: Verified) -> ReadoutFacts:
    """How states are read, and what the traced tail consists of."""
    readout, tail = verified.readout, verified.tail
    return ReadoutFacts(
        kind=readout.kind,
        streamed=isinstance(readout, LinearReadout),
        reason=verified.doubt,
        steps=() if tail is None else _steps(model, tail.before),
        norm=None if tail is None else _norm(model, tail, verified.stream),
        head=None if tail is None else _head(model, tail.head),
        postprocess=readout.postprocess if tail is None else tail.postprocess,
        dtype=str(readout.dtype).removeprefix("torch."),
        precision=str(readout.precision).removeprefix("torch."),
    )


def _start(model: nn.Module, stream: Stream) -> str:
    """Where the state before the first block is taken."""
    if stream.first is None:
        return f"the input of {stream.names[0]}"
    return f"the input of {name_of(model, stream.first)}"


def _argument(place: Place) -> str:
    """A place among `(args, kwargs)`."""
    kind, key, *rest = place
    what = f"argument {int(key) + 1}" if kind == 0 else f"argument `{key}`"
    return what + _inside(rest)


def _output(place: Place) -> str:
    """A place in an output."""
    if not place:
        return "the output"
    key, *rest = place
    what = f"entry {key + 1}" if isinstance(key, int) else f"entry `{key}`"
    return f"{what} of the output" + _inside(rest)


def _inside(place: Sequence[str | int]) -> str:
    """The rest of a place, as Python would write it."""
    return "".join(f"[{key!r}]" for key in place)


def _together(places: Sequence[str]) -> str:
    """One place, or several that are one stream together."""
    return places[0] if len(places) == 1 else f"{' and '.join(places)}, stacked"


def _axes(stream: Stream) -> tuple[str, ...]:
    """The stream's axes in order."""
    named = {stream.batch_axis: "texts", stream.time_axis: "tokens"}
    return tuple(named.get(axis, "width") for axis in range(stream.template.dim()))


def _steps(model: nn.Module, steps: Sequence[Step]) -> tuple[str, ...]:
    """Modules by name and class, operations in words; casts are left out."""
    shown = []
    for step in steps:
        if isinstance(step, Operation):
            if not step.is_cast:
                shown.append(describe((step,)))
        else:
            shown.append(f"{name_of(model, step)} ({type(step).__name__})")
    return tuple(shown)


@torch.no_grad()
def _norm(model: nn.Module, tail: Tail, stream: Stream) -> NormFacts | None:
    """The first step behind the blocks that normalises, a plain one if there is any.

    What ends with a norm of its own, such as a dense layer before the head, forgets
    the size of a vector too.
    """
    values = stream.from_vectors(stream.template.new_ones(4, stream.width))
    found = []
    for step in tail.before:
        if not isinstance(step, Operation):
            found.append(norm_facts(name_of(model, step), step, values))
        values = step(values)
    norms = [facts for facts in found if facts is not None]
    plain = (facts for facts in norms if facts.kind != "other")
    return next(plain, norms[0] if norms else None)


def _head(model: nn.Module, head: nn.Module) -> HeadFacts:
    """The head and what it shares."""
    weight = getattr(head, "weight", None)
    bias = getattr(head, "bias", None)
    name = name_of(model, head)
    return HeadFacts(
        module=name,
        module_class=type(head).__name__,
        tied_to=_sharing(model, name, weight) if isinstance(weight, Tensor) else (),
        bias=isinstance(bias, Tensor),
    )


def _sharing(model: nn.Module, name: str, weight: Tensor) -> tuple[str, ...]:
    """Names of the other modules that hold the very same weight."""
    return tuple(
        other
        for other, module in model.named_modules()
        if other != name and any(own is weight for own in module._parameters.values())
    )


def name_of(model: nn.Module, module: nn.Module) -> str:
    """A module's name in its model."""
    names = (name for name, other in model.named_modules() if other is module)
    return next(names, type(module).__name__)
