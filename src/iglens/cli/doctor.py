"""`iglens doctor`: is a model read exactly, how is that known, what does it cost?"""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as o
from .loading import (
    AcceptLicence,
    Attention,
    Device,
    DeviceMap,
    Dtype,
    Revision,
    TrustRemoteCode,
    announced,
)
from .talk import quiet_libraries

if TYPE_CHECKING:
    from ..records.examination import Examination

ModelName = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="Hub id, folder, GGUF file, or embedded model; default smollm2.",
    ),
]
Tokens = Annotated[
    int,
    typer.Option(
        help="Length of the text that memory is estimated for; at most the context.",
        min=2,
        rich_help_panel="What comes out",
    ),
]


def doctor_command(
    model: ModelName = None,
    tokens: Tokens = 512,
    dtype: Dtype = None,
    device: Device = None,
    device_map: DeviceMap = None,
    revision: Revision = None,
    attn_implementation: Attention = None,
    trust_remote_code: TrustRemoteCode = False,
    accept_licence: AcceptLicence = False,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Say whether a model is read exactly, and what that verdict rests on.

    The verdict comes first. It rests on a proof against the model's own
    forward, and on a text on which the readout is compared with the model's own
    distribution. Exit code 0: the model can be explained; 2: it is refused, or
    there is none.
    """
    quiet_libraries()
    name = announced(model, accept_licence=accept_licence, quiet=quiet)
    result, refusal = _examined(
        name,
        tokens,
        revision=revision,
        dtype=dtype,
        device=device,
        device_map=device_map,
        attn_implementation=attn_implementation,
        trust_remote_code=trust_remote_code,
        quantization_config=None,
        accept_licence=accept_licence,
    )
    _show(result, as_json=as_json, quiet=quiet)
    if result.verdict == "refused":
        from ..errors import UnsupportedModelError

        raise UnsupportedModelError(
            f"{name} is refused; the report says why."
        ) from refusal


def _examined(
    name: str, tokens: int, **loading: Any
) -> "tuple[Examination, Exception | None]":
    """The examination of a model, and what it was refused with, if it was."""
    from ..errors import UnsupportedModelError
    from ..examining.examination import REFUSALS, examine_decoder, examine_refused
    from ..model.decoder import Decoder
    from ..model.loading.load import load_model
    from ..model.source import Source

    try:
        model, tokenizer, source = load_model(name, **loading)
    except UnsupportedModelError as error:
        return examine_refused(error, Source(id=name)), error
    try:
        decoder = Decoder(model, tokenizer, source=source)
    except REFUSALS as error:
        return examine_refused(error, source, model, tokenizer), error
    return examine_decoder(decoder, tokens), None


def _show(result: "Examination", *, as_json: bool, quiet: bool) -> None:
    """The report on stdout, warnings on stderr."""
    if as_json:
        typer.echo(json.dumps(result.to_json(), ensure_ascii=False))
        return
    from rich.console import Console

    from ..report.examination import render

    console = Console(highlight=False)
    console.print(render(result, console.width))
    if not quiet:
        for warning in result.warnings:
            typer.echo(f"Warning: {warning}", err=True)
