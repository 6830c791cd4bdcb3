"""What a declaration names, held against what was seen: wrong names are refused."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from ..errors import UnsupportedModelError
from .calls import Call
from .stream import Stream


def declared_stack(
    name: str, groups: Mapping[str, list[Call]], model: nn.Module
) -> dict[str, list[Call]]:
    """The declared stack of blocks alone.

    Args:
        name: What `Declaration(blocks=...)` says.
        groups: Calls of every stack that was seen, by the name that holds them.
        model: The model, to tell a wrong name from a wrong module.

    Raises:
        UnsupportedModelError: If it is none of them; all are listed.
    """
    if name in groups:
        return {name: groups[name]}
    there = name in dict(model.named_modules())
    seen = ", ".join(f"{key} ({len(calls)} calls)" for key, calls in groups.items())
    raise UnsupportedModelError(
        f"`blocks` names {name!r}, "
        + ("which holds no stack of modules" if there else "which is no module")
        + f" of {type(model).__name__}. Modules that were seen to run in a numbered "
        f"row: {seen or 'none'}."
    )


def declared_first(
    name: str, streams: Sequence[Stream], calls: Sequence[Call], model: nn.Module
) -> list[Stream]:
    """The streams whose `h_0` the declared module takes.

    It must run before the blocks, and the first tensor it takes must be a state of
    every token.

    Args:
        name: What `Declaration(first=...)` says.
        streams: Every candidate.
        calls: The module calls of the run in which the candidates were found.
        model: The model.

    Raises:
        UnsupportedModelError: If it does not hold for any of them.
    """
    kind = type(model).__name__
    module = next((call.module for call in calls if call.name == name), None)
    if module is None:
        raise UnsupportedModelError(
            f"`first` names {name!r}, which {kind} does not call. Name a module that "
            f"runs before the blocks, such as one of {', '.join(_early(calls))}."
        )
    reasons = {stream.container: _misfit(name, stream, calls) for stream in streams}
    fitting = [stream for stream in streams if reasons[stream.container] is None]
    if not fitting:
        listed = "; ".join(f"for {key}, {value}" for key, value in reasons.items())
        raise UnsupportedModelError(f"`first` names {name!r} of {kind}: {listed}.")
    return [replace(stream, first=module) for stream in fitting]


def _misfit(name: str, stream: Stream, calls: Sequence[Call]) -> str | None:
    """Why the module's input cannot be the stream before the first block, if so."""
    order = [call.name for call in calls]
    if order.index(name) > order.index(stream.names[0]):
        return f"it runs after {stream.names[0]}, the first block"
    wanted = tuple(stream.template.shape)
    given = [t for t in calls[order.index(name)].input_tensors() if _is_real(t)]
    if not given:
        return f"it takes no tensor of real numbers, and the stream is one of {wanted}"
    if (found := tuple(given[0].shape)) != wanted:
        return f"it takes a tensor of {found}, and the stream is one of {wanted}"
    return None


def _early(calls: Sequence[Call]) -> list[str]:
    """Some modules that take real numbers, in the order of their calls."""
    taking = (call.name for call in calls if any(map(_is_real, call.input_tensors())))
    return list(dict.fromkeys(taking))[:4]


def _is_real(tensor: Tensor) -> bool:
    """Whether it holds real numbers, as states do and token ids do not."""
    return tensor.is_floating_point()
