"""`iglens serve`: the local web application."""

from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ArgumentError
from . import options as o
from .groups import Loading
from .loading import Model
from .talk import quiet_libraries

if TYPE_CHECKING:
    from ..model.decoder import Decoder
    from ..readout.lens import AbstractLens
    from ..serve.served import Lenses, Load

_NEEDED = ("fastapi", "uvicorn")

_ADDRESS, _LIMITS = "Who may ask", "How much it takes on"


def _number(
    *names: str, panel: str, text: str, min: int = 0
) -> typer.models.OptionInfo:
    """An option that takes a whole number."""
    return typer.Option(*names, help=text, min=min, rich_help_panel=panel)


def _words(*names: str, text: str) -> typer.models.OptionInfo:
    """An option that takes a text, or none."""
    return typer.Option(*names, help=text, rich_help_panel=_ADDRESS)


Host = Annotated[str, _words("--host", text="Address to listen at.")]
Port = Annotated[int, _number("--port", panel=_ADDRESS, text="Port; 0 for a free one.")]
Expose = Annotated[
    bool, _words("--expose", text="Let other machines in, with a token.")
]
Token = Annotated[
    str | None, _words("--token", text="The token; one is made where it is needed.")
]
AllowHost = Annotated[
    list[str] | None,
    _words("--allow-host", text="Another name this server is reached by; repeatable."),
]
Open = Annotated[bool, _words("--open/--no-open", text="Open the page in a browser.")]
LensFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--lens",
        help="Lens file that may be chosen by its name; repeatable.",
        rich_help_panel="What is explained",
    ),
]
Also = Annotated[
    list[str] | None,
    typer.Option(
        "--also",
        help="Another model that may be chosen; one is in memory at a time; "
        "repeatable.",
        rich_help_panel="What is explained",
    ),
]
MaxTokens = Annotated[
    int, _number("--max-tokens", panel=_LIMITS, text="Tokens of a text.", min=2)
]
MaxNewTokens = Annotated[
    int, _number("--max-new-tokens", panel=_LIMITS, text="Tokens to generate.")
]
Queue = Annotated[
    int, _number("--queue", panel=_LIMITS, text="Questions that may wait.", min=1)
]
Timeout = Annotated[
    int, _number("--timeout", panel=_LIMITS, text="Seconds for one answer.", min=1)
]
History = Annotated[
    int, _number("--history", panel=_LIMITS, text="Results to remember.", min=1)
]


def serve_command(
    model: Model = None,
    *,
    loading: Loading,
    host: Host = "127.0.0.1",
    port: Port = 8417,
    expose: Expose = False,
    token: Token = None,
    allow_host: AllowHost = None,
    open_page: Open = False,
    lens: LensFiles = None,
    also: Also = None,
    max_tokens: MaxTokens = 512,
    max_new_tokens: MaxNewTokens = 64,
    queue: Queue = 8,
    timeout: Timeout = 300,
    history: History = 32,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Ask in a browser: a page and a JSON API on this machine.

    Needs the extra `serve`. Only this machine gets in unless --expose says so.
    Prompts are not logged; Ctrl-C ends it.
    """
    check_installed()
    quiet_libraries()
    from ..serve.access import access_to
    from ..serve.limits import Limits
    from ..serve.run import address, listen, serve_until_stopped

    allowed = tuple(allow_host or ())
    access_to(host, port, expose=expose, token=token, allow=allowed)  # before listening
    with listen(host, port) as taken:
        port = taken.getsockname()[1]
        access = access_to(host, port, expose=expose, token=token, allow=allowed)
        decoder = loading.decoder(model, quiet=quiet)
        from ..serve.app import Application, loud_report, quiet_report
        from ..serve.served import Served

        limits = Limits(
            tokens=max_tokens,
            new_tokens=max_new_tokens,
            waiting=queue,
            seconds=float(timeout),
            kept=history,
        )
        lenses = lenses_of(decoder, lens or [])
        choices = choices_of(decoder, model, also or [], lens or [], loading)
        served = Served(decoder, lenses, limits, choices)
        del decoder, lenses  # when another model is chosen, nobody else may hold it
        report = loud_report if debug else quiet_report
        application = Application(served, access, report)
        place = address(host, port, access)

        def started() -> None:
            """Say where, and show it."""
            typer.echo(f"Listening at {place} (Ctrl-C ends it)", err=True)
            if open_page:
                typer.launch(place)

        serve_until_stopped(application, taken, started)
    if not quiet:
        typer.echo("Stopped.", err=True)


def check_installed() -> None:
    """Refuse where the extra is not installed.

    Raises:
        ArgumentError: If it is not.
    """
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise ArgumentError(
            f"`iglens serve` needs {' and '.join(missing)}: "
            'pip install "iglens[serve]".'
        )


def choices_of(
    decoder: "Decoder",
    model: str | None,
    also: list[str],
    lens: list[Path],
    loading: Loading,
) -> "dict[str, Load]":
    """Models that may be chosen, by the names that are shown; none for one alone.

    Raises:
        ArgumentError: If two would be shown under one name.
    """
    from ..serve.discretion import public_name

    if not also:
        return {}
    paths = {public_name(decoder.info.id): (model, lens)}
    for name in also:
        shown = public_name(name)
        if shown in paths:
            raise ArgumentError(f"`--also` {name}: another model is called {shown}.")
        paths[shown] = (name, [])

    def load(name: str | None, files: list[Path]) -> "tuple[Decoder, Lenses]":
        """The model, and its lenses."""
        loaded = loading.decoder(name, quiet=True)
        return loaded, lenses_of(loaded, files)

    return {shown: partial(load, *each) for shown, each in paths.items()}


def lenses_of(decoder: "Decoder", paths: list[Path]) -> "dict[str, AbstractLens]":
    """Lenses by the names of their files, and the one in the cache as "auto".

    Raises:
        IGLensError: If one is no lens of this model, or two have one name.
    """
    from ..explaining.lenses.file import lens_file, load_lens

    found: dict[str, AbstractLens] = {}
    for path in paths:
        if path.stem in ("logit", "auto", *found):
            raise ArgumentError(f"`--lens` {path}: the name {path.stem} is taken.")
        found[path.stem] = load_lens(decoder, path)
    try:
        cached = lens_file(decoder, "auto")
    except ArgumentError:  # none was fitted
        return found
    return {"auto": load_lens(decoder, cached), **found} if cached else found
