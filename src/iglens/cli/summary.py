"""`iglens summary`: a run as statistics, with intervals over prompts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import OutputError
from . import options as o
from .deliver import deliver
from .output import checked_outputs
from .progress import progress_bars
from .talk import quiet_libraries

if TYPE_CHECKING:
    from rich.console import Console

    from ..records.summary import Summary

_HOW, _OUT = "How it is summed up", "What comes out"

RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="Folder that `iglens run` wrote.")
]
SliceBy = Annotated[
    list[str] | None,
    typer.Option(
        "--slice",
        help="Column to sort tokens by: correct, token_class, target, or any of the "
        "input's own; repeatable.",
        rich_help_panel=_HOW,
    ),
]
Null = Annotated[
    Path | None,
    typer.Option(
        help="Run made with `--null`: what is left when there is nothing to find.",
        rich_help_panel=_HOW,
    ),
]
Level = Annotated[
    float,
    typer.Option(help="Share of intervals that are to hold.", rich_help_panel=_HOW),
]
Bootstrap = Annotated[
    int,
    typer.Option(help="Replicates of the bootstrap.", rich_help_panel=_HOW),
]
Seed = Annotated[
    int, typer.Option(help="What they are drawn from.", rich_help_panel=_HOW)
]
Figure = Annotated[
    str | None,
    typer.Option(
        help="Chart in a picture: credits, levels, onsets, slices or null.",
        rich_help_panel=_OUT,
    ),
]
OutputFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "-o",
        "--output",
        help="File to write: .json, .csv, .parquet, .md, .html, .svg, .png, .pdf; "
        "repeatable.",
        rich_help_panel=_OUT,
    ),
]


def summary_command(
    run: RunFolder,
    slices: SliceBy = None,
    null: Null = None,
    level: Level = 0.95,
    bootstrap: Bootstrap = 1000,
    seed: Seed = 0,
    figure: Figure = None,
    output: OutputFiles = None,
    output_format: o.OutputFormat = None,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Sum up a run: where its tokens became readable, and how sure that is.

    Means over all explained tokens, with intervals over prompts: tokens of one prompt
    are no independent draws. RUN may be unfinished; then what is there is summed up. No
    model is loaded.
    """
    from ..report.documents import DOCUMENTS, PICTURES
    from ..storage.summary_form import FORMATS

    outputs = checked_outputs(output or [], output_format, [*FORMATS, *DOCUMENTS])
    quiet_libraries()
    from ..corpus.store import Store
    from ..corpus.summary import is_standard, summarise, write_summary

    store = Store.load(run)
    with progress_bars(quiet=quiet) as progress:
        found = summarise(
            store,
            slices=slices or (),
            null=null,
            level=level,
            bootstrap=bootstrap,
            seed=seed,
            progress=progress,
        )
    talk = [f"Note: {note}" for note in found.notes]
    if is_standard(found):
        try:
            write_summary(store, found)
        except OutputError as error:
            talk.append(f"Note: summary.json was not brought up to date. {error}")

    def save(made: "Summary", path: Path, file_format: str | None) -> None:
        """Write a file, in pictures the chart that was asked for."""
        extension = f".{(file_format or path.suffix.removeprefix('.')).lower()}"
        if extension in PICTURES:
            from ..report.charts.files import picture_bytes
            from ..storage.atomic import write_whole

            write_whole(path, picture_bytes(made.figure(figure), extension))
        else:
            made.save(path, file_format)

    deliver(found, outputs, save, _show, talk, as_json=as_json, quiet=quiet)


def _show(found: "Summary", console: "Console") -> None:
    """The sentences, then the tables."""
    from rich.text import Text

    from ..report import summary as report
    from ..report.visible import visible

    console.print(Text(report.heading(found), style="dim"))
    console.print()
    for line in report.sentences(found):
        console.print(Text(line))
    for group in found.whole:
        console.print()
        console.print(report.layer_table(found, group))
        console.print()
        console.print(report.depth_table(group))
    for one in found.slices:
        console.print()
        console.print(Text(f"By {visible(one.column)}"))
        console.print(report.slice_table(one))
        for contrast in one.contrasts:
            console.print(Text(report.contrast_line(contrast).strip()))
    console.print()
    for line in report.footer(found):
        console.print(Text(line, style="dim"))
