"""`iglens explain`: the token x layer map of one text."""

import json
from typing import TYPE_CHECKING

import typer

from ..errors import ArgumentError
from . import options as o
from .gates import check_path, explain_gates, gates_formats
from .groups import Asked, Loading, Read, Typed
from .loading import Model
from .output import checked_outputs, show, told, write_all
from .parse import parse_prompt
from .talk import Profile, quiet_libraries

if TYPE_CHECKING:
    from ..explaining import Prepared, Reader
    from ..model.decoder import Decoder
    from ..records import Flow, Promotion
    from ..records.ensemble import Sensitivity
    from ..records.interaction import Interaction


def explain_command(
    prompt: o.PromptText,
    model: Model = None,
    *,
    asked: Asked,
    read: Read,
    loading: Loading,
    typed: Typed,
    path: o.AlongPath = "blocks",
    output: o.OutputFiles = None,
    output_format: o.OutputFormat = None,
    as_json: o.AsJson = False,
    sensitivity: o.Sensitivity = False,
    rivals: o.Rivals = None,
    promotion: o.Promotion = False,
    interaction: o.Interaction = False,
    quiet: o.Quiet = False,
    profile: o.ShowProfile = False,
    debug: o.Debug = False,
) -> None:
    """Show at which layers the probability of each token became readable.

    The model continues PROMPT and every token it adds is explained; --target and
    --answer explain another token or text instead. Credits add up exactly to the
    change of the token's probability, on a readout that is checked against the
    model's own distribution.
    """
    through_gates = check_path(path, read, typed)
    formats = gates_formats() if through_gates else None
    outputs = checked_outputs(output or [], output_format, formats)
    text = parse_prompt(prompt)
    timer = Profile(enabled=profile)
    quiet_libraries()
    if interaction and read.by == "layer":
        raise ArgumentError("`--interaction` is between parts: add `--by sublayer`.")
    with timer.stage("import"):
        question, reader = asked.arguments, read.reader  # refused before the model
        from ..explaining import prepare
    with timer.stage("load"):
        decoder = loading.decoder(model, quiet=quiet)
    if through_gates:
        with timer.stage("gates"):
            explain_gates(
                decoder, text, question, read, outputs, as_json=as_json, quiet=quiet
            )
        timer.report()
        return
    with timer.stage():
        reader = reader.check(decoder)
        prepared = prepare(decoder, text, layers=read.layers, by=reader.by, **question)
    with timer.stage("readout"):
        result = reader.of(
            decoder, prepared, diagnostics=read.diagnostics, strict=read.strict
        )
        more = _further(
            reader,
            decoder,
            prepared,
            sensitivity=sensitivity,
            rivals=rivals,
            promotion=promotion,
            interaction=interaction,
            strict=read.strict,
        )
    with timer.stage("render"):
        write_all(result, outputs, quiet=quiet)
        if as_json:
            further = {name: found.to_json() for name, found in more.items()}
            typer.echo(json.dumps(result.to_json() | further, ensure_ascii=False))
        else:
            show(result, shares=asked.answer is not None, quiet=quiet)
            for text in map(told, more.values()):
                typer.echo(f"\n{text}")
    timer.report()


def _further(
    reader: "Reader",
    decoder: "Decoder",
    asked: "Prepared",
    *,
    sensitivity: bool,
    rivals: int | None,
    promotion: bool,
    interaction: bool,
    strict: bool,
) -> "dict[str, Sensitivity | Flow | Promotion | Interaction]":
    """What is asked about the same states besides the map, by its name in JSON."""
    found: dict[str, Sensitivity | Flow | Promotion | Interaction] = {}
    if sensitivity:
        found["sensitivity"] = reader.sensitivity(decoder, asked)
    if rivals is not None:
        found["flow"] = reader.flows(decoder, asked, top=rivals, strict=strict)
    if promotion:
        found["promotion"] = reader.promotion(decoder, asked, strict=strict)
    if interaction:
        found["interaction"] = reader.interaction(decoder, asked, strict=strict)
    return found
