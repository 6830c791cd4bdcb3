"""`iglens diff`: two results, prompts or runs, or one prompt on two models."""

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ArgumentError
from . import options as o
from .deliver import deliver, warned
from .diff_runs import RUNS_ONLY, Bootstrap, Level, Pair, are_runs, diff_runs
from .groups import Asked, Loading, Read, Typed
from .loading import Model
from .output import checked_outputs
from .recorded import result_file
from .talk import quiet_libraries
from .two_runs import Run, run_both, run_like

if TYPE_CHECKING:
    from rich.console import Console

    from ..records import Attribution
    from ..records.difference import Difference

_PANEL = "What is explained"

First = Annotated[
    str,
    typer.Argument(
        metavar="A", help="Result file, folder of a run, or prompt; - reads stdin."
    ),
]
Second = Annotated[
    str | None, typer.Argument(metavar="B", help="The same, to take A from.")
]
Against = Annotated[
    str | None,
    typer.Option(help="Run A on this model too, and compare.", rich_help_panel=_PANEL),
]
AgainstRevision = Annotated[
    str | None, typer.Option(help="Revision of that model.", rich_help_panel=_PANEL)
]
AgainstDtype = Annotated[
    str | None, typer.Option(help="Dtype of that model.", rich_help_panel=_PANEL)
]
OutputFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "-o",
        "--output",
        help="File to write: .json, .csv, .parquet, .html, .md, .svg, .png, .pdf; "
        "repeatable.",
        rich_help_panel="What comes out",
    ),
]

_AGAINST = {"against", "against_revision", "against_dtype"}
_SHOWN = {"a", "b", "layers", "output", "output_format", "as_json", "quiet", "debug"}
_OF_RUNS = RUNS_ONLY | {"seed"} | (_SHOWN - {"layers"})
"""What may be said of two runs."""
_FOLLOWED = {"model", "chat", "system", "special_tokens", "baseline", "lens"} | {
    field.name for field in fields(Loading)
}
"""What may be said of a prompt that is run as a result file was."""


def diff_command(
    a: First,
    b: Second = None,
    model: Model = None,
    against: Against = None,
    against_revision: AgainstRevision = None,
    against_dtype: AgainstDtype = None,
    *,
    asked: Asked,
    read: Read,
    loading: Loading,
    pair: Pair = "auto",
    level: Level = 0.95,
    bootstrap: Bootstrap = 1000,
    output: OutputFiles = None,
    output_format: o.OutputFormat = None,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
    typed: Typed,
) -> None:
    """Show by how much each layer differs between two runs: B less A.

    A and B are result files, or prompts run on one model; with --against,
    --against-revision or --against-dtype, A is run on two models. The second run
    explains what the first one does: the same targets, as far from the end of the
    prompt. The difference of two tables that add up adds up.

    Two folders that `iglens run` wrote are compared token by token: mean differences,
    with intervals over prompts.
    """
    outputs = checked_outputs(output or [], output_format, _formats())
    quiet_libraries()
    if are_runs(a, b):
        assert b is not None  # else it would be no run
        _only(typed, _OF_RUNS, "both arguments are runs, which say how they were made")
        diff_runs(
            a,
            b,
            outputs,
            pair=pair,
            level=level,
            bootstrap=bootstrap,
            seed=asked.seed,
            as_json=as_json,
            quiet=quiet,
        )
        return
    _only(typed, set(typed - RUNS_ONLY), "it is for two folders of `iglens run`")
    run = Run(model, loading, asked, read, quiet)
    other = None
    if typed & _AGAINST:
        other = replace(
            run,
            model=against or model,
            loading=replace(
                loading,
                revision=against_revision or (None if against else loading.revision),
                dtype=against_dtype or loading.dtype,
            ),
        )
    first, second = _results(a, b, run, other, typed)
    from ..records.difference import diff

    layers = _layers(read.layers, first) if "layers" in typed else None
    found = diff(first, second, layers=layers)
    from ..records.difference import Difference

    talk = [f"Note: {note}" for note in found.notes]
    talk += warned((*found.a.warnings, *found.b.warnings))
    deliver(found, outputs, Difference.save, _show, talk, as_json=as_json, quiet=quiet)


def _results(
    a: str, b: str | None, run: Run, other: Run | None, typed: Typed
) -> "tuple[Attribution, Attribution]":
    """Both results, loaded or run."""
    if b is not None and other is not None:
        raise ArgumentError(
            "With `--against…` two models are compared, on one prompt; without it, two "
            "prompts or files. Both at once would not say which made the difference."
        )
    file, other_file = result_file(a), None if b is None else result_file(b)
    if b is None and (other is None or file is not None):
        raise ArgumentError(
            f"There is nothing to compare {a!r} with: name a second file or prompt"
            + (", or another model with `--against`." if file is None else ".")
        )
    if file is None and other_file is None:
        return run_both(run, other, a, b)
    if file is not None and other_file is not None:
        _only(typed, _SHOWN, "both arguments are result files, and nothing is run")
        return file, other_file
    _only(typed, _SHOWN | _FOLLOWED, "the result file says what is explained, and how")
    if file is not None:
        return file, run_like(run, str(b), file, typed)
    assert other_file is not None  # one of them is
    return run_like(run, a, other_file, typed), other_file


def _only(typed: Typed, known: set[str], why: str) -> None:
    """Refuse options that would change nothing."""
    if unused := sorted(typed - known):
        shown = ", ".join(f"--{name.replace('_', '-')}" for name in unused)
        raise ArgumentError(f"`{shown}` changes nothing here: {why}. Leave it out.")


def _layers(layers: str, result: "Attribution") -> list[int] | None:
    """Layers to take both paths through; None for all."""
    from ..explaining.choices import choose_layers

    return choose_layers(layers, result.provenance.model.n_layers)


def _formats() -> tuple[str, ...]:
    """Extensions of the files that a difference can be written to."""
    from ..report.documents import DOCUMENTS
    from ..storage.difference_form import DIFFERENCE_FORMATS

    return (*DIFFERENCE_FORMATS, *DOCUMENTS)


def _show(found: "Difference", console: "Console") -> None:
    """The sentences, then the table."""
    from rich.text import Text

    from ..report.difference import choices, render, sentence, sides, verdict
    from ..report.through_lens import difference_sentences

    console.print(Text(choices(found), style="dim"))
    for side in sides(found):
        console.print(Text(side, style="italic"))
    console.print()
    for row in range(found.n_rows):
        console.print(Text(sentence(found, row)))
    for line in difference_sentences(found):
        console.print(Text(line))
    console.print()
    console.print(render(found, console.width))
    console.print()
    console.print(Text(verdict(found), style="dim"))
