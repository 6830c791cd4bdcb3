"""`iglens explain`: the token x layer map of one text."""

import json

import typer

from . import options as o
from .groups import Asked, Loading, Read
from .loading import Model
from .output import checked_outputs, show, write_all
from .parse import parse_prompt
from .talk import Profile, quiet_libraries


def explain_command(
    prompt: o.PromptText,
    model: Model = None,
    *,
    asked: Asked,
    read: Read,
    loading: Loading,
    output: o.OutputFiles = None,
    output_format: o.OutputFormat = None,
    as_json: o.AsJson = False,
    sensitivity: o.Sensitivity = False,
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
    outputs = checked_outputs(output or [], output_format)
    text = parse_prompt(prompt)
    timer = Profile(enabled=profile)
    quiet_libraries()
    with timer.stage("load"):
        question, reader = asked.arguments, read.reader  # refused before the model
        decoder = loading.decoder(model, quiet=quiet)
    from ..explaining import prepare

    reader = reader.check(decoder)
    with timer.stage("run"):
        prepared = prepare(decoder, text, layers=read.layers, **question)
    with timer.stage("explain"):
        result = reader.of(
            decoder, prepared, diagnostics=read.diagnostics, strict=read.strict
        )
        compared = reader.sensitivity(decoder, prepared) if sensitivity else None
    with timer.stage("render"):
        write_all(result, outputs, quiet=quiet)
        if as_json:
            more = {} if compared is None else {"sensitivity": compared.to_json()}
            typer.echo(json.dumps(result.to_json() | more, ensure_ascii=False))
        else:
            show(result, quiet=quiet)
            if compared is not None:
                typer.echo(f"\n{compared}")
    timer.report()
