"""`iglens compare`: the relatives of IG-Lens, side by side on one token."""

from typing import Annotated, Any

import typer

from . import options as o
from .deliver import deliver, warned
from .groups import Asked, Loading, Typed
from .loading import Model
from .output import checked_outputs
from .parse import parse_precision, parse_prompt
from .talk import Profile, quiet_libraries

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
Audit = Annotated[
    bool,
    typer.Option(
        help="Skip every layer too, and say how far each method agrees with that.",
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
    audit: Audit = True,
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

    The token is the one the model would say next, or --target. Every method runs
    by itself; its passes through the model and the head are counted, not
    estimated. The audit, which skips every layer once, is counted apart.
    Files end in .html, .md, .csv (the table), .json, .svg, .png or .pdf.
    """
    from ..records.comparison import Comparison
    from ..report.comparison import render
    from ..report.documents import PICTURES
    from ..storage.comparison_form import FORMATS

    outputs = checked_outputs(output or [], output_format, [*FORMATS, *PICTURES])
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
            audit=audit,
            strict=strict,
            tell=(lambda title: None) if quiet else _tell,
        )
    deliver(
        found,
        outputs,
        Comparison.save,
        lambda found, console: console.print(render(found)),
        warned(found.warnings),
        as_json=as_json,
        quiet=quiet,
    )
    timer.report()


def _question(asked: Asked, typed: Typed) -> dict[str, Any]:
    """Arguments of `prepare`; one token where nothing else was asked for."""
    question = asked.arguments
    return question if "max_new_tokens" in typed else question | {"max_new_tokens": 1}


def _tell(title: str) -> None:
    """Say which method runs: some run the model many times."""
    typer.echo(f"Running {title} …", err=True)
