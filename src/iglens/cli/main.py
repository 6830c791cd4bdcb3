"""The command line: `iglens COMMAND`. Parses, calls the library, prints.

Nothing heavy is imported before a command runs, so that help answers at once. stdout
is data, stderr is talk. Exit codes: 0 done, 2 bad input or refused, 1 internal error.
"""

import sys
import traceback
from typing import Annotated, Any

import typer

from .. import __version__
from ..errors import IGLensError
from .audit import audit_command
from .compare import compare_command
from .diff import diff_command
from .doctor import doctor_command
from .explain import explain_command
from .groups import grouped
from .lens import lens_app
from .models import models_app
from .replay import replay_command
from .report import report_command
from .run import run_command
from .serve import serve_command
from .summary import summary_command

_UsageError: Any = typer.BadParameter.__base__  # Typer has a copy of Click's

app = typer.Typer(
    name="iglens",
    help="Between which two layers does the probability of a token become readable?",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("explain")(grouped(explain_command))
app.command("compare")(grouped(compare_command))
app.command("audit")(grouped(audit_command))
app.command("doctor")(doctor_command)
app.command("diff")(grouped(diff_command))
app.command("replay")(grouped(replay_command))
app.command("report")(report_command)
app.command("run")(grouped(run_command))
app.command("serve")(grouped(serve_command))
app.command("summary")(summary_command)
app.add_typer(lens_app, name="lens")
app.add_typer(models_app, name="models")


def _print_version(wanted: bool) -> bool:
    """Print the version and stop."""
    if wanted:
        typer.echo(f"iglens {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Show the version.",
        ),
    ] = False,
) -> None:
    """Between which two layers does the probability of a token become readable?"""


def main() -> None:
    """Run the command line; whatever goes wrong ends in one line and an exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    debug = "--debug" in arguments
    try:
        code = app(arguments or ["--help"], prog_name="iglens", standalone_mode=False)
    except IGLensError as error:
        return _fail(str(error), error, debug, 2)
    except _UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "iglens"
        text = f"{error.format_message().rstrip('.')}. See `{command} --help`."
        return _fail(text, error, debug, 2)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("Stopped.", err=True)
        return 130
    except Exception as error:
        text = f"{type(error).__name__}: {error} (a bug in iglens; --debug shows where)"
        return _fail(text, error, debug, 1)
    return code if isinstance(code, int) else 0


def _fail(text: str, error: Exception, debug: bool, code: int) -> int:
    """One line on stderr, or the whole traceback if asked for."""
    if debug:
        traceback.print_exception(error)
    typer.echo(f"iglens: {' '.join(text.split())}", err=True)
    return code
