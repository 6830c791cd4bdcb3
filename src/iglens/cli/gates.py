"""`iglens explain --path gates`: what layers do through later ones, and the ledger."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError
from .deliver import deliver, warned
from .groups import Read, Typed
from .output import Output
from .parse import parse_precision, parse_unit
from .progress import progress_bars

if TYPE_CHECKING:
    from ..model.decoder import Decoder

PATHS = ("blocks", "gates")

_NO_READING = {
    "layers": "all gates open together, so that the path has every layer on it",
    "baseline": "the gate path begins with all blocks closed, at the embedding",
    "lens": "the model itself reads the end of the gate path, through no lens",
    "estimator": "the gate path is integrated until it is certified",
}
"""Why an option means nothing there unless it has the value it has anyway."""

_AS_IT_IS = {
    "layers": ("all",),
    "baseline": (None, ["embedding"]),
    "lens": ("logit",),
    "estimator": ("observed",),
}

_UNUSED = {
    "n_steps": "the gate path is integrated until it is certified",
    "rule": "the gate path is integrated until it is certified",
    "top": "gates are of blocks and sublayers, all of which are shown",
    "diagnostics": "the gate path reads no states on the way",
    "tolerance": "the gate path reads no states on the way",
    "sensitivity": "the gate path has one start, the embedding",
    "rivals": "flows between tokens are along the path of blocks",
    "promotion": "promotion is along the path of blocks",
    "interaction": "interaction is along the path of blocks",
}
"""Why an option means nothing there at all."""


def check_path(path: str, read: Read, typed: Typed) -> bool:
    """Whether the gate path is asked for; what it has no meaning for is refused.

    Raises:
        ArgumentError: If there is no such path, or an option does not go with it.
    """
    if path not in PATHS:
        raise ArgumentError(f"`--path` is {path!r}; known are {', '.join(PATHS)}.")
    if path == "blocks":
        return False
    for name, known in _AS_IT_IS.items():
        if getattr(read, name) not in known:
            raise _refusal(name, _NO_READING[name])
    for name in sorted(typed & set(_UNUSED)):
        raise _refusal(name, _UNUSED[name])
    if read.by not in ("layer", "sublayer"):
        raise _refusal("by", "gates go by layer or sublayer", read.by)
    return True


def gates_formats() -> tuple[str, ...]:
    """Extensions of the files that effects can be written to."""
    from ..report.documents import DOCUMENTS
    from ..storage.effects_form import EFFECTS_FORMATS

    return (*EFFECTS_FORMATS, *DOCUMENTS)


def _refusal(name: str, why: str, value: str = "") -> ArgumentError:
    """Why an option does not go with gates."""
    shown = f"--{name.replace('_', '-')} {value}".strip()
    return ArgumentError(f"`{shown}` does not go with `--path gates`: {why}.")


def explain_gates(
    decoder: "Decoder",
    prompt: str,
    question: dict[str, Any],
    read: Read,
    outputs: Sequence[Output],
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Integrate the gate path of every token, write and show it.

    Args:
        decoder: The model.
        prompt: As it was typed.
        question: Arguments of `prepare`.
        read: How states are read.
        outputs: Files to write.
        as_json: Print JSON on stdout.
        quiet: No talk.
    """
    from ..gating import gates
    from ..records.effects import Effects
    from ..report.effects import render

    with progress_bars(quiet=quiet) as progress:
        found = gates(
            decoder,
            prompt,
            by=read.by,
            unit=parse_unit(read.unit),
            precision=parse_precision(read.precision),
            strict=read.strict,
            progress=progress,
            **question,
        )
    deliver(
        found,
        outputs,
        Effects.save,
        lambda found, console: console.print(render(found)),
        warned(found.warnings),
        as_json=as_json,
        quiet=quiet,
    )
