"""What commands do with a finding: files first, then stdout, then the talk."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import typer

from .output import Output

if TYPE_CHECKING:
    from rich.console import Console


@runtime_checkable
class Written(Protocol):
    """What has a published form."""

    def to_json(self) -> dict[str, Any]:
        """The form as JSON values."""


Found = TypeVar("Found", bound=Written)


def deliver(
    found: Found,
    outputs: Sequence[Output],
    save: Callable[[Found, Path, str | None], None],
    show: "Callable[[Found, Console], None]",
    talk: Iterable[str] = (),
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write the files, print a finding on stdout, and what else to know on stderr.

    Args:
        found: The finding.
        outputs: Files to write.
        save: Writes one.
        show: Prints the finding for people.
        talk: Lines for stderr, such as warnings.
        as_json: Print JSON instead.
        quiet: No lines on stderr.
    """
    for one in outputs:
        save(found, one.path, one.file_format)
        if not quiet:
            typer.echo(f"Wrote {one.path}", err=True)
    if as_json:
        typer.echo(json.dumps(found.to_json(), ensure_ascii=False))
        return
    from rich.console import Console

    show(found, Console(highlight=False))
    if not quiet:
        for line in talk:
            typer.echo(line, err=True)


def warned(warnings: Iterable[str]) -> list[str]:
    """Warnings as lines, each once."""
    return [f"Warning: {warning}" for warning in dict.fromkeys(warnings)]
