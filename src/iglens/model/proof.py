"""The proof of a model: found by running it, or remembered of the same files.

Remembered is what was found and how well it was proved: names of modules, places and
axes of the stream, the steps of the tail, the measured noise, tolerance and power. No
weight and no output is. Before any of it is believed, the model is run once more: its
blocks must be called as they were, and reading what the last of them gives must equal
the model's own logits within the tolerance. Every text that is explained is checked
in the same way again.
"""

from typing import Any

from torch import Tensor, nn

from ..errors import IGLensError
from ..readout import AbstractReadout, CalledReadout
from ..readout.abstract import at_least_float32
from ..readout.fidelity import NoiseFloor, Tolerance
from ..readout.measure import gap
from ..stages import stage
from .calls import recorded_calls
from .conditions import conditions
from .declaration import Declaration
from .discover import SHAPES, arbitrary_tokens
from .explicit import explicit_readout
from .injected import Injected, model_lock
from .loading.notes import note, recalled
from .pooling import as_it_answers
from .runner import Runner
from .source import Source
from .stream import Stream
from .tail_form import tail_form, tail_of
from .verify import Verified, verify

_KIND, _SCHEMA = "proofs", 1

_AXES = ("batch_axis", "time_axis", "prefix", "repeat", "chained")
"""What is remembered of a stream besides names and places."""

_FAULTS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RuntimeError,
    IGLensError,
)
"""What a remembered proof of something else raises when it is tried."""


@stage("verify")
def proof(
    model: nn.Module, declaration: Declaration, source: Source | None = None
) -> tuple[Runner, Verified]:
    """The model as a function, and its verified stream and readout.

    Args:
        model: The model.
        declaration: What is known of it.
        source: Where it was loaded from just now, untouched since; None if its proof
            must not be taken from memory.

    Raises:
        UnsupportedModelError: If no readout can be proved.
        NonFiniteError: If the model's logits are not finite.
    """
    with model_lock(model):
        stamp = None
        if source is not None and declaration == Declaration():
            stamp = conditions(model, source)
        if stamp is not None and (found := _remembered(model, stamp)) is not None:
            return found
        runner = as_it_answers(Runner(model, declaration.inputs))
        verified = verify(runner, declaration)
        if stamp is not None and not runner.pooled:
            fact = _form(model, verified)
            if fact is not None:
                note(_KIND, _name(stamp), stamp, fact)
        return runner, verified


def _name(stamp: dict[str, Any]) -> str:
    """What a proof is about: a later one of the same takes its place."""
    same = ("weights", "class", "attention", "tensors", "device")
    return " ".join([str(_SCHEMA), *(str(stamp[key]) for key in same)])


def _form(model: nn.Module, verified: Verified) -> dict[str, Any] | None:
    """A proof as JSON has it; None if it holds what has no such form."""
    stream = verified.stream
    tail = None if verified.tail is None else tail_form(verified.tail, model)
    if stream.first is not None or (verified.tail is not None and tail is None):
        return None
    return {
        "container": stream.container,
        "names": stream.names,
        "enter": stream.enter,
        "leave": stream.leave,
        "axes": {name: getattr(stream, name) for name in _AXES},
        "vocab_size": verified.readout.vocab_size,
        "kind": verified.readout.kind,
        "tail": tail,
        "noise": vars(verified.noise),
        "tolerance": vars(verified.tolerance),
        "power": verified.power,
        "notes": verified.notes,
        "doubt": verified.doubt,
    }


def _remembered(
    model: nn.Module, stamp: dict[str, Any]
) -> tuple[Runner, Verified] | None:
    """The proof of these files, if there is one and it holds on this model."""
    fact = recalled(_KIND, _name(stamp), stamp)
    if fact is None:
        return None
    runner = Runner(model)
    try:
        verified, states, logits = _rebuilt(runner, fact)
        missed = gap(verified.readout.logits(states), logits, runner.measure)
        holds = bool((missed <= verified.tolerance.of(runner.measure)).all())
    except _FAULTS:
        return None
    return (runner, verified) if holds else None


def _rebuilt(runner: Runner, fact: dict[str, Any]) -> tuple[Verified, Tensor, Tensor]:
    """A remembered proof on this model, and a run of it: last states, own logits."""
    modules = dict(runner.model.named_modules())
    names = tuple(fact["names"])
    ids = arbitrary_tokens(runner.model, SHAPES[0])
    watched = [(name, modules[name]) for name in dict.fromkeys(names)]
    with recorded_calls(watched) as calls:
        logits = runner(ids).flatten(0, 1)
    if tuple(call.name for call in calls) != names:
        raise ValueError("the blocks are called in another order")
    stream = Stream(
        fact["container"],
        names,
        tuple(modules[name] for name in names),
        tuple(map(tuple, fact["enter"])),
        tuple(map(tuple, fact["leave"])),
        tuple(call.output for call in calls),
        **fact["axes"],
    )
    if logits.shape[-1] != fact["vocab_size"]:
        raise ValueError("the vocabulary has another size")
    verified = _verified(runner, stream, fact)
    states = stream.to_rows(stream.template).flatten(0, 1)
    return verified, states, logits.to(states.device)


def _verified(runner: Runner, stream: Stream, fact: dict[str, Any]) -> Verified:
    """A remembered proof, around a stream of this model."""
    template, vocab_size = stream.template, int(fact["vocab_size"])
    injected = CalledReadout(
        tail=Injected(runner, stream),
        d_model=stream.width,
        vocab_size=vocab_size,
        dtype=template.dtype,
        precision=at_least_float32(template.dtype),
    )
    tail = None if fact["tail"] is None else tail_of(fact["tail"], runner.model)
    readout: AbstractReadout = injected
    if tail is not None and fact["kind"] == "explicit":
        readout = explicit_readout(tail, stream, vocab_size)
    if readout.kind != fact["kind"]:
        raise ValueError("the readout is of another kind")
    return Verified(
        stream,
        readout,
        injected,
        NoiseFloor(**fact["noise"]),
        Tolerance(**fact["tolerance"]),
        float(fact["power"]),
        tuple(fact["notes"]),
        tail,
        fact["doubt"],
        remembered=True,
    )
