"""`iglens audit`: credits of the readout beside what happens without each layer."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options as o
from .deliver import deliver, warned
from .groups import Loading
from .loading import Model
from .output import checked_outputs
from .parse import parse_prompt, parse_unit
from .progress import progress_bars
from .talk import quiet_libraries

if TYPE_CHECKING:
    from rich.console import Console

    from ..records.audit import Audit

_TEXT, _HOW, _OUT = "What is explained", "What is done", "What comes out"

Prompts = Annotated[
    list[str],
    typer.Argument(metavar="PROMPT", help="Texts to audit; - reads one from stdin."),
]
Target = Annotated[
    list[str] | None,
    typer.Option(
        help="Next token to audit: one for all texts, or one for each in their order; "
        "default: what the model says.",
        rich_help_panel=_TEXT,
    ),
]
By = Annotated[
    str, typer.Option(help="layer, or sublayer (attention, MLP).", rich_help_panel=_HOW)
]
At = Annotated[
    str,
    typer.Option(
        help="Take layers out at all tokens, or at the last.", rich_help_panel=_HOW
    ),
]
Ablation = Annotated[
    str,
    typer.Option(
        help="skip (output is input) or mean (the update is its mean over the texts).",
        rich_help_panel=_HOW,
    ),
]
Gates = Annotated[
    bool,
    typer.Option(
        "--gates",
        help="Also open all layers together, and say what each adds on the way.",
        rich_help_panel=_HOW,
    ),
]
Curves = Annotated[
    bool,
    typer.Option(
        "--curves",
        help="Also take layers out, and put them back, one after the other.",
        rich_help_panel=_HOW,
    ),
]
Tolerance = Annotated[
    float,
    typer.Option(help="What the gate path may be off by.", rich_help_panel=_HOW),
]
Methods = Annotated[
    str | None,
    typer.Option(
        help="Also hold methods of `iglens compare` against the effects: all, or names "
        "with commas.",
        rich_help_panel=_HOW,
    ),
]
Lens = Annotated[
    str,
    typer.Option(
        help="Fitted lens of the methods that need one: auto, or a file.",
        rich_help_panel=_HOW,
    ),
]
NSteps = Annotated[
    int,
    typer.Option(
        help="Steps of the methods that integrate.", min=1, rich_help_panel=_HOW
    ),
]
Nulls = Annotated[
    str,
    typer.Option(
        help="What correlations are compared to: shuffled (other texts' targets), "
        "random-weights (the same architecture, untrained), both or none.",
        rich_help_panel=_HOW,
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        help="For random orders, weights and intervals.", rich_help_panel=_HOW
    ),
]
OutputFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "-o",
        "--output",
        help="File to write: .json, .csv, .parquet, .html, .md, .svg, .png, .pdf; "
        "repeatable.",
        rich_help_panel=_OUT,
    ),
]


def audit_command(
    prompts: Prompts,
    model: Model = None,
    target: Target = None,
    unit: o.Unit = None,
    chat: o.Chat = False,
    special_tokens: o.SpecialTokens = True,
    by: By = "layer",
    at: At = "all",
    ablation: Ablation = "skip",
    gates: Gates = False,
    curves: Curves = False,
    tolerance: Tolerance = 1e-4,
    methods: Methods = None,
    lens: Lens = "logit",
    n_steps: NSteps = 32,
    nulls: Nulls = "shuffled",
    seed: Seed = 0,
    *,
    loading: Loading,
    strict: o.Strict = True,
    output: OutputFiles = None,
    output_format: o.OutputFormat = None,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Compare what layers are credited with to what happens without them.

    For each PROMPT one next token is audited. Every layer is taken out in a run of its
    own; its effect is what the token loses. Credits say where a token became readable,
    effects what it depends on: they may disagree, and where they do is listed.
    """
    from ..records.audit import Audit
    from ..report.documents import DOCUMENTS
    from ..storage.audit_form import AUDIT_FORMATS

    known = [*AUDIT_FORMATS, *DOCUMENTS]
    outputs = checked_outputs(output or [], output_format, known)
    texts, chosen = [parse_prompt(text) for text in prompts], parse_unit(unit)
    quiet_libraries()
    decoder = loading.decoder(model, quiet=quiet)
    from ..auditing import audit

    with progress_bars(quiet=quiet) as progress:
        found = audit(
            decoder,
            texts,
            target=target,
            by=by,
            unit=chosen,
            at=at,
            ablation=ablation,
            gates=gates,
            curves=curves,
            tolerance=tolerance,
            methods=methods or (),
            lens=lens,
            n_steps=n_steps,
            nulls=nulls,
            seed=seed,
            chat=chat,
            special_tokens=special_tokens,
            strict=strict,
            progress=progress,
        )
    talk = warned(found.warnings)
    deliver(found, outputs, Audit.save, _show, talk, as_json=as_json, quiet=quiet)


def _show(found: "Audit", console: "Console") -> None:
    """The table, then the sentences."""
    from rich.text import Text

    from ..report.audit import agreement_table, footer, heading, sentences, table

    console.print(Text(heading(found), style="dim"))
    console.print()
    console.print(table(found))
    console.print()
    console.print(agreement_table(found))
    console.print()
    for line in sentences(found):
        console.print(Text(line))
    console.print()
    for line in footer(found):
        console.print(Text(line, style="dim"))
