"""`iglens report`: saved results as pages, text and pictures; no model is loaded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ArgumentError
from . import options as o
from .output import Output, checked_outputs

Files = Annotated[
    list[Path],
    typer.Argument(help="Saved results to show: .safetensors or .json."),
]
OutputFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "-o",
        "--output",
        help="File to write: .html, .md, .svg, .png, .pdf; repeatable. Default: an "
        ".html beside each result.",
    ),
]
Figure = Annotated[
    str | None,
    typer.Option(
        help="Chart in a picture: map, levels, onsets, waterfall, trajectory, "
        "components, heads or sources; default: waterfall of one token, map of more."
    ),
]
Row = Annotated[int, typer.Option(help="Token that a chart of one is of, from 0.")]
Theme = Annotated[str, typer.Option(help="light or dark, for pictures.")]


def report_command(
    files: Files,
    output: OutputFiles = None,
    output_format: o.OutputFormat = None,
    figure: Figure = None,
    row: Row = 0,
    theme: Theme = "light",
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Turn saved results into pages that open anywhere, and into pictures.

    A page holds everything it needs: token strip, map, waterfall, rivals and parts,
    linked to each other, with tables of every chart, what was verified, and where the
    numbers come from. It loads nothing and can be used by keyboard.
    """
    from ..report.documents import DOCUMENTS, writers
    from ..storage import load, save

    places = _places(files, output or [])
    asked = checked_outputs([p for _, p in places], output_format, [*DOCUMENTS])
    makes = writers(figure, row, theme)
    for file, one in zip((file for file, _ in places), asked, strict=True):
        save(load(file), one.path, one.file_format, also=makes)
        _say(one, quiet=quiet)


def _places(files: Sequence[Path], output: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Which result goes where.

    Raises:
        ArgumentError: If several results would go to the same file.
    """
    if output:
        if len(files) > 1:
            raise ArgumentError(
                f"`--output` says where one result goes, but there are {len(files)}: "
                "leave it out to write a page beside each, or report one at a time."
            )
        return [(files[0], place) for place in output]
    return [(file, file.with_suffix(".html")) for file in files]


def _say(one: Output, *, quiet: bool) -> None:
    """Tell that a file is there."""
    if not quiet:
        typer.echo(f"Wrote {one.path}", err=True)
