"""`iglens models`: which models need no network, and fetching the embedded ones."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from ..model.loading.embedded import EmbeddedModel, Progress


class _ListByDefault(TyperGroup):
    """Takes `iglens models` for `iglens models list`.

    Typer's own way, a callback that looks at its context, hands over another class
    than the one it has to be annotated with, and our tests check annotations.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--help" not in args and (not args or args[0].startswith("-")):
            args = ["list", *args]
        return super().parse_args(ctx, args)


models_app = typer.Typer(
    help="List the models that need no network (the default), or fetch one.",
    cls=_ListByDefault,
)


@models_app.command("list")
def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the embedded models, and the Hugging Face models already on this disk."""
    rows = _rows()
    typer.echo(json.dumps({"models": rows}, indent=2) if as_json else _table(rows))


@models_app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="Name of an embedded model.")],
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept the licence's terms.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
) -> None:
    """Download, verify and convert an embedded model; prints its folder."""
    typer.echo(obtain(name, accept_licence=accept_licence, quiet=quiet))


def obtain(name: str, *, accept_licence: bool = False, quiet: bool = False) -> Path:
    """An embedded model's folder, with the talk that a person at a terminal expects.

    Shows progress and asks about terms on standard error. Every command that
    takes `-m` can call this first; a model that is here is returned in silence.

    Args:
        name: Entry of the catalogue.
        accept_licence: Whether its terms are accepted already.
        quiet: Whether to show no progress.

    Raises:
        IGLensError: As `iglens.model.loading.embedded.ensure` does.
    """
    from ..model.loading.embedded import cached_path, ensure, find

    if (path := cached_path(name)) is not None:
        return path
    model = find(name)
    if model.terms is not None and not accept_licence:
        accept_licence = _ask(model)
    with nullcontext() if quiet else _progress(model) as progress:
        return ensure(name, accept_licence=accept_licence, progress=progress)


def _ask(model: "EmbeddedModel") -> bool:
    """Whether the person at this terminal, if there is one, accepts the terms."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    typer.echo(f"{model.title} is under the {model.licence}: {model.terms}", err=True)
    # not typer.confirm: even with err=True it writes a space to standard output
    typer.echo("Have you read them, and do you agree? [y/N] ", err=True, nl=False)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


@contextmanager
def _progress(model: "EmbeddedModel") -> Iterator["Progress"]:
    """A bar on standard error, or a line per stage where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int | None) -> None:
            size = "" if total is None else f" ({total / 1e6:.0f} MB)"
            text = f"{model.name}: {stage}{size}"
            if text not in tasks:
                tasks[text] = bars.add_task(text, total=total)
                if not console.is_terminal:
                    typer.echo(text, err=True)
            bars.update(tasks[text], completed=done)

        yield report


def _rows() -> list[dict[str, object]]:
    """Embedded models first, then what the Hugging Face cache holds."""
    from ..model.loading.embedded import status
    from ..model.loading.hub import cached_models

    embedded: list[dict[str, object]] = [
        {
            "name": one.name,
            "title": one.title,
            "source": "embedded",
            "licence": one.licence,
            "cached": one.cached,
            "bytes": one.bytes,
            "path": None if one.path is None else str(one.path),
        }
        for one in status()
    ]
    return embedded + [
        {
            "name": one.name,
            "title": one.name,
            "source": "hub",
            "licence": None,
            "cached": True,
            "bytes": one.bytes,
            "path": str(one.path),
        }
        for one in cached_models()
    ]


def _table(rows: list[dict[str, object]]) -> str:
    """Aligned columns that stay whole in a pipe."""
    lines = [("NAME", "SOURCE", "LICENCE", "SIZE", "WHERE")]
    lines += [
        (
            str(row["name"]),
            str(row["source"]),
            str(row["licence"] or "see its card"),
            f"{int(str(row['bytes'])) / 1e6:.0f} MB",
            str(row["path"] or f"to download: iglens models fetch {row['name']}"),
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    return "\n".join(
        "  ".join([*map(str.ljust, line[:4], widths), line[4]]) for line in lines
    )
