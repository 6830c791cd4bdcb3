"""The options that say which model to load, the same for every command."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..model.decoder import Decoder

_PANEL = "Loading"


def _option(*names: str, text: str) -> typer.models.OptionInfo:
    """An option of the loading panel."""
    return typer.Option(*names, help=text, rich_help_panel=_PANEL)


Model = Annotated[
    str | None,
    typer.Option(
        "-m",
        "--model",
        help="Hub id, folder, GGUF file, or embedded model; default smollm2.",
        rich_help_panel="What is explained",  # the one that everybody sets
    ),
]
Dtype = Annotated[
    str | None,
    _option("--dtype", text="float32, float64, bfloat16, float16 or auto."),
]
Device = Annotated[str | None, _option("--device", text="cpu, cuda, cuda:1, mps.")]
DeviceMap = Annotated[
    str | None, _option("--device-map", text="Spread over devices: auto, balanced.")
]
Revision = Annotated[
    str | None, _option("--revision", text="Commit, branch or tag on the hub.")
]
Attention = Annotated[
    str | None, _option("--attn-implementation", text="sdpa, eager, ….")
]
TrustRemoteCode = Annotated[
    bool, _option("--trust-remote-code", text="Run code that comes with the model.")
]
AcceptLicence = Annotated[
    bool, _option("--accept-licence", text="Accept an embedded model's terms.")
]


def load_decoder(
    model: str | None,
    *,
    dtype: str | None,
    device: str | None,
    device_map: str | None,
    revision: str | None,
    attn_implementation: str | None,
    trust_remote_code: bool,
    accept_licence: bool,
    quiet: bool,
) -> "Decoder":
    """The decoder of a command, fetched first if it is an embedded model."""
    name = announced(model, accept_licence=accept_licence, quiet=quiet)
    from ..model.decoder import Decoder

    return Decoder.from_pretrained(
        name,
        revision=revision,
        dtype=dtype,
        device=device,
        device_map=device_map,
        attn_implementation=attn_implementation,
        trust_remote_code=trust_remote_code,
        accept_licence=accept_licence,
    )


def announced(model: str | None, *, accept_licence: bool, quiet: bool) -> str:
    """The name of the model to load; fetched first if it is an embedded one."""
    from ..model.loading.embedded import DEFAULT, is_embedded
    from .models import obtain

    name = model or DEFAULT
    if is_embedded(name):
        obtain(name, accept_licence=accept_licence, quiet=quiet)
    if not quiet:
        typer.echo(f"Loading {name} …", err=True)
    return name
