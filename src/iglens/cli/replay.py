"""`iglens replay`: a saved result, run again from its token ids."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options as o
from .groups import Loading
from .output import checked_outputs, write_all
from .recorded import as_recorded
from .talk import quiet_libraries

if TYPE_CHECKING:
    from ..records.replay import Replay

ResultFile = Annotated[
    Path, typer.Argument(help="Result to run again: .safetensors or .json.")
]
Model = Annotated[
    str | None,
    typer.Option(
        "-m",
        "--model",
        help="What to run it on; default: the model the file names.",
        rich_help_panel="Loading",
    ),
]


def replay_command(
    file: ResultFile,
    model: Model = None,
    *,
    loading: Loading,
    output: o.OutputFiles = None,
    output_format: o.OutputFormat = None,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Run a saved result again, from its token ids, and say what moved.

    The file names the model, its dtype and its attention; options go before it.
    Exit code 0: nothing moved by more than rounding; 2: something did, or the
    result cannot be run again.
    """
    outputs = checked_outputs(output or [], output_format)
    from ..storage import load

    result = load(file)
    quiet_libraries()
    from ..explaining import replay
    from ..explaining.recorded import recorded_reader, recorded_rows

    recorded_reader(result)  # refused before the model is loaded, not after
    recorded_rows(result)
    name, loading = as_recorded(result, model, loading)
    found = replay(result, loading.decoder(name, quiet=quiet))
    write_all(found.now, outputs, quiet=quiet)
    _show(found, as_json=as_json, quiet=quiet)
    if not found.is_reproduced:
        raise typer.Exit(2)


def _show(found: "Replay", *, as_json: bool, quiet: bool) -> None:
    """The verdict on stdout, new warnings on stderr."""
    if as_json:
        typer.echo(json.dumps(found.to_json(), ensure_ascii=False))
    else:
        typer.echo(str(found))
    if not quiet:
        for warning in found.now.warnings:
            if warning not in found.then.warnings:
                typer.echo(f"Warning: {warning}", err=True)
