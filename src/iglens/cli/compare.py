"""`iglens compare`: the relatives of IG-Lens, side by side on one token."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as o
from .groups import Asked, Loading, Typed
from .loading import Model
from .output import checked_outputs
from .parse import parse_precision, parse_prompt
from .talk import Profile, quiet_libraries

if TYPE_CHECKING:
    from ..records.comparison import Comparison

Methods = Annotated[
    str,
    typer.Option(
        help="all, or names with commas: ig-lens,logit-lens,dla,….",
        rich_help_panel="How it is read",
    ),
]
NSteps = Annotated[
    int,
    typer.Option(
        help="Steps of the methods that integrate.",
        min=1,
        rich_help_panel="How it is read",
    ),
]
Lens = Annotated[
    str,
    typer.Option(
        help="Fitted lens of the methods that need one: auto, or a file.",
        rich_help_panel="How it is read",
    ),
]


def compare_command(
    prompt: o.PromptText,
    model: Model = None,
    *,
    asked: Asked,
    loading: Loading,
    typed: Typed,
    methods: Methods = "all",
    lens: Lens = "logit",
    n_steps: NSteps = 32,
    precision: o.Precision = None,
    strict: o.Strict = True,
    output: o.OutputFiles = None,
    output_format: o.OutputFormat = None,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    profile: o.ShowProfile = False,
    debug: o.Debug = False,
) -> None:
    """Run several attribution methods on one token and show what each adds up to.

    The token is the one the model would say next, or --target. Every method runs by
    itself; its passes through the model and the head are counted, not estimated.
    Files end in .html, .md, .csv (the table) or .json.
    """
    from ..storage.comparison_form import FORMATS

    outputs = checked_outputs(output or [], output_format, FORMATS)
    text, dtype = parse_prompt(prompt), parse_precision(precision)
    timer = Profile(enabled=profile)
    quiet_libraries()
    question = _question(asked, typed)
    with timer.stage("load"):
        from ..methods import chosen_methods, compared

        picked = chosen_methods(methods)  # refused before the model is loaded
        decoder = loading.decoder(model, quiet=quiet)
    from ..explaining import prepare
    from ..explaining.lenses.file import load_lens

    with timer.stage("run"):
        fitted = load_lens(decoder, lens)
        prepared = prepare(decoder, text, **question)
    with timer.stage("compare"):
        found = compared(
            decoder,
            prepared,
            picked,
            lens=fitted,
            n_steps=n_steps,
            precision=dtype,
            strict=strict,
            tell=(lambda title: None) if quiet else _tell,
        )
    for place in outputs:
        found.save(place.path, place.file_format)
        if not quiet:
            typer.echo(f"Wrote {place.path}", err=True)
    _show(found, as_json=as_json, quiet=quiet)
    timer.report()


def _question(asked: Asked, typed: Typed) -> dict[str, Any]:
    """Arguments of `prepare`; one token where nothing else was asked for."""
    question = asked.arguments
    return question if "max_new_tokens" in typed else question | {"max_new_tokens": 1}


def _tell(title: str) -> None:
    """Say which method runs: some run the model many times."""
    typer.echo(f"Running {title} …", err=True)


def _show(found: "Comparison", *, as_json: bool, quiet: bool) -> None:
    """The table on stdout, warnings on stderr."""
    if as_json:
        typer.echo(json.dumps(found.to_json(), ensure_ascii=False))
        return
    from rich.console import Console

    from ..report.comparison import render

    console = Console(highlight=False)
    console.print(render(found))
    if not quiet:
        for warning in found.warnings:
            typer.echo(f"Warning: {warning}", err=True)
