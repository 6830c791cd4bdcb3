"""What a client is told when it does not get an answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import (
    ArgumentError,
    ArgumentTypeError,
    FidelityError,
    ModelLoadError,
    NonFiniteError,
    UnsupportedModelError,
)
from .question import Question
from .watch import Reason

_REFUSALS = (ArgumentError, ArgumentTypeError, FidelityError, NonFiniteError)
"""Errors whose sentences are about the question; others may name files."""


@dataclass(frozen=True)
class Failure:
    """An error as it goes over the wire.

    Attributes:
        status: Of HTTP.
        kind: A word to tell failures apart by.
        message: One sentence: what is wrong, and what to do.
        headers: Further headers of the answer.
    """

    status: int
    kind: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The body of the answer."""
        return {"error": {"kind": self.kind, "message": self.message}}


CRASHED = Failure(
    500,
    "crashed",
    "The computation broke off inside the server and nothing of it is left. Ask again, "
    "or ask something smaller; the server's terminal names the kind of error.",
)
NOT_LOADED = Failure(
    503,
    "unavailable",
    "This model cannot be loaded here now; whoever runs the server sees why. Choose "
    "another one.",
)
NO_MEMORY = Failure(
    500,
    "no_memory",
    "There was not enough memory for this question. Ask for fewer positions, a shorter "
    "text, or a coarser level (`by`).",
)


def of_error(error: BaseException) -> Failure:
    """What may be said of an exception: a refusal's sentence, and of a crash nothing.

    A model that "does not run" because it raised something is a crash too: its own
    message could say anything.
    """
    if _out_of_memory(error):
        return NO_MEMORY
    told = isinstance(error, UnsupportedModelError) and error.__cause__ is None
    if told or isinstance(error, _REFUSALS):
        return Failure(422, type(error).__name__, " ".join(str(error).split()))
    return NOT_LOADED if isinstance(error, ModelLoadError) else CRASHED


def _out_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out, on any device, at the root of it."""
    while error is not None:
        named = isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__
        if named or "can't allocate memory" in str(error):  # as PyTorch says on CPUs
            return True
        error = error.__cause__
    return False


def of_stop(reason: Reason, seconds: float) -> Failure:
    """What is said of a computation that was stopped."""
    if reason == "cancelled":
        return Failure(409, "cancelled", "The question was cancelled.")
    return Failure(
        504,
        "timeout",
        f"Answering took more than {seconds:g} seconds and was stopped. Ask for fewer "
        "positions or a coarser level, or start `iglens serve` with a larger "
        "`--timeout`.",
    )


def of_many(waiting: int, retry_after: int) -> Failure:
    """What is said when the queue is full."""
    return Failure(
        429,
        "busy",
        f"{waiting} questions are waiting already, which is as many as this server "
        f"lets wait. Ask again in {retry_after} seconds.",
        {"Retry-After": str(retry_after)},
    )


def of_invalid(errors: Sequence[Mapping[str, Any]]) -> Failure:
    """One sentence about the first thing that is wrong with a body.

    Args:
        errors: What pydantic found.
    """
    first = min(errors, key=lambda error: error["type"] != "extra_forbidden")
    place = [part for part in first["loc"] if part != "body"]
    if first["type"] == "json_invalid":
        return Failure(422, "invalid", "The body is not JSON that can be read.")
    if not place:
        return Failure(422, "invalid", "The body must be a JSON object: a question.")
    name = str(place[0])
    if first["type"] == "extra_forbidden":
        return Failure(422, "invalid", _unknown(".".join(map(str, place))))
    if first["type"] == "missing" and len(place) == 1:
        return Failure(422, "invalid", f"`{name}` is missing: {_takes(name)}.")
    why = first["ctx"]["error"] if first["type"] == "value_error" else ""
    shown = f"is {_short(first.get('input'))}" + (f", which {why}" if why else "")
    return Failure(422, "invalid", f"`{name}` {shown}; it must be {_takes(name)}.")


def _takes(name: str) -> str:
    """What a field takes, in words."""
    known = Question.model_fields.get(name)
    return str(known.description) if known is not None else "something else"


def _unknown(name: str) -> str:
    """What is said of a field that there is not."""
    known = ", ".join(Question.model_fields)
    return f"`{_short(name)[1:-1]}` is no part of a question; known are {known}."


def _short(value: object) -> str:
    """A value as it was given, cut."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
