"""Where results go: the terminal, and files whose places are checked first."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from ..records import Attribution, Flow, Promotion
    from ..records.ensemble import Sensitivity
    from ..records.interaction import Interaction


@dataclass(frozen=True)
class Output:
    """A file to write, and the format if it is not that of its extension."""

    path: Path
    file_format: str | None


def checked_outputs(
    paths: Sequence[Path],
    file_format: str | None,
    formats: Sequence[str] | None = None,
) -> list[Output]:
    """The files to write, refused before the model runs if they cannot be.

    Args:
        paths: Where to.
        file_format: One format for all of them, if not by extension.
        formats: Extensions there are; None for those of a result.

    Raises:
        OutputError: If a place is not writable or a format is unknown.
    """
    if not paths:
        return []
    from ..report.documents import DOCUMENTS
    from ..storage import FORMATS, check_writable

    for path in paths:
        known = [*FORMATS, *DOCUMENTS] if formats is None else formats
        check_writable(path, file_format, known)
    return [Output(path, file_format) for path in paths]


def write_all(result: "Attribution", outputs: Sequence[Output], *, quiet: bool) -> None:
    """Write every file, whole or not at all."""
    if not outputs:
        return
    from ..report.documents import writers
    from ..storage import save

    for output in outputs:
        save(result, output.path, output.file_format, also=writers())
        if not quiet:
            typer.echo(f"Wrote {output.path}", err=True)


def show(result: "Attribution", *, shares: bool = False, quiet: bool) -> None:
    """The map and its sentences on stdout, warnings on stderr.

    Args:
        result: What to show.
        shares: Whether to show the joint probability of a whole answer too.
        quiet: No warnings.
    """
    from rich.console import Console
    from rich.text import Text

    from ..records.answer import whole_answer
    from ..report import components
    from ..report.terminal import render, render_shares
    from ..report.text import heading, sentences, verification
    from ..report.through_lens import lens_sentences, render_split

    console = Console(highlight=False)
    console.print(Text(heading(result), style="dim"))
    if result.provenance.prompt is not None:
        console.print(Text(_excerpt(result.provenance.prompt), style="italic"))
    console.print()
    for line in sentences(result):
        console.print(Text(line))
    console.print()
    console.print(render(result, console.width))
    console.print()
    if (split := render_split(result, console.width)) is not None:
        console.print(split)
    for line in lens_sentences(result):
        console.print(Text(line))
    if result.lens != "logit":
        console.print()
    answer = whole_answer(result) if shares else None
    if answer is not None:
        console.print(render_shares(answer, console.width))
        console.print()
    if result.components is not None:
        console.print(Text("\n".join(components.lines(result))))
        console.print()
    console.print(Text(verification(result), style="dim"))
    if not quiet:
        for warning in result.warnings:
            typer.echo(f"Warning: {warning}", err=True)


def told(found: "Sensitivity | Flow | Promotion | Interaction") -> str:
    """What else was asked, in lines; its warnings are those of the map."""
    from ..records import Flow, Promotion
    from ..report import flow, promotion

    match found:
        case Flow():
            return "\n".join(flow.lines(found))
        case Promotion():
            return "\n".join(promotion.lines(found))
        case _:
            return str(found)


def _excerpt(prompt: str, width: int = 200) -> str:
    """The end of the prompt, where the explained tokens are."""
    from ..report.visible import visible

    shown = visible(prompt.replace("\n", "↵"))
    return shown if len(shown) <= width else f"…{shown[-width:]}"
