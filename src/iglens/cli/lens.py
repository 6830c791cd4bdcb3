"""`iglens lens`: fitting and judging the maps that states are read through."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ArgumentError
from . import options as o
from .groups import Loading, grouped
from .progress import progress_bars
from .talk import Profile, quiet_libraries

if TYPE_CHECKING:
    from ..explaining.lenses.polish import Polish
    from ..model.decoder import Decoder

_TEXT, _FIT = "What text it is about", "How it is fitted"

ModelName = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="Hub id, folder, GGUF file, or embedded model; default smollm2.",
    ),
]
TextFile = Annotated[
    Path | None,
    typer.Option(
        "--text",
        help="Text file: a document per paragraph, or per line of a .jsonl file.",
        rich_help_panel=_TEXT,
    ),
]
Dataset = Annotated[
    str | None,
    typer.Option(
        help="Hub id or folder, as NAME:split:column; needs the package datasets.",
        rich_help_panel=_TEXT,
    ),
]
FitTokens = Annotated[
    int | None,
    typer.Option(
        help="Tokens to read; default 8 per dimension, at least 4096.",
        min=1,
        rich_help_panel=_TEXT,
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        help="Of the model's own text, and of what is held out.",
        min=0,
        rich_help_panel=_TEXT,
    ),
]
EvalSeed = Annotated[
    int,
    typer.Option(
        "--seed",
        help="Of the model's own text; another than it was fitted with.",
        min=0,
        rich_help_panel=_TEXT,
    ),
]
Ridge = Annotated[
    float | None,
    typer.Option(
        help="Penalty relative to the mean variance; default: the best of a few.",
        rich_help_panel=_FIT,
    ),
]
FitLayers = Annotated[
    str,
    typer.Option(
        "--layers",
        help="Layers that get a translator: all, 1,5,30 or ::4.",
        rich_help_panel=_FIT,
    ),
]
PolishIt = Annotated[
    bool,
    typer.Option(
        "--polish",
        help="Go on by gradient descent on the divergence; takes much longer, and can "
        "be stopped and called again.",
        rich_help_panel=_FIT,
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(help="Steps of --polish (250).", min=1, rich_help_panel=_FIT),
]
StepTokens = Annotated[
    int | None,
    typer.Option(help="Tokens per step (256).", min=1, rich_help_panel=_FIT),
]
LensFile = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        help="File to write; default: the cache, where --lens auto finds it.",
        rich_help_panel="What comes out",
    ),
]
LensName = Annotated[
    str,
    typer.Option(
        "--lens",
        help="auto (the one fitted on this model), a file, or a tuned-lens folder.",
        rich_help_panel="How it is read",
    ),
]
EvalTokens = Annotated[
    int,
    typer.Option(help="Tokens to read at.", min=1, rich_help_panel=_TEXT),
]
EvalLayers = Annotated[
    str,
    typer.Option(
        "--layers",
        help="Layers to read: all, 1,5,30 or ::4.",
        rich_help_panel="How it is read",
    ),
]

lens_app = typer.Typer(
    help="Fit a lens (a map that each layer's states are read through), or judge one."
)


def fit_command(
    *,
    model: ModelName = None,
    text: TextFile = None,
    dataset: Dataset = None,
    tokens: FitTokens = None,
    seed: Seed = 0,
    ridge: Ridge = None,
    layers: FitLayers = "all",
    polish: PolishIt = False,
    steps: Steps = None,
    step_tokens: StepTokens = None,
    loading: Loading,
    output: LensFile = None,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    profile: o.ShowProfile = False,
    debug: o.Debug = False,
) -> None:
    """Fit a translator per layer, in closed form, and say how good it is.

    Without --text and --dataset the model writes its own text. A tenth of the
    documents is held out, and the table is about these: how far the final distribution
    is from what a layer reads (KL), the same for the mean distributions (bias), and
    how often both name the same token (top-1), raw and through the lens.
    """
    recipe = _recipe(polish, steps, step_tokens)
    texts, source = _texts(text, dataset)
    if output is not None:
        from ..storage.atomic import check_replaceable

        check_replaceable(output)
    timer = Profile(enabled=profile)
    quiet_libraries()
    with timer.stage("load"):
        decoder = loading.decoder(model, quiet=quiet)
    from ..explaining.lenses.evaluate import evaluate_on
    from ..explaining.lenses.fit import fit

    path = output or _cached(decoder)
    state = path.with_name(f"{path.name}.polish")
    with progress_bars(quiet=quiet) as progress:
        with timer.stage("fit"):
            fitted = fit(
                decoder,
                texts,
                source=source,
                tokens=tokens,
                seed=seed,
                ridge=ridge,
                layers=layers,
                polish=recipe,
                checkpoint=None if recipe is None else state,
                progress=progress,
            )
            fitted.lens.save(path)
            if recipe is not None:
                state.unlink(missing_ok=True)
        with timer.stage("judge"):
            found = evaluate_on(
                decoder,
                fitted.lens,
                fitted.parts.held_out,
                tokens=_JUDGED,
                progress=progress,
            )
    if not quiet:
        typer.echo(f"Wrote {path}", err=True)
    assert fitted.lens.info is not None  # a fit has it
    about = {"path": str(path), "settings": fitted.lens.info.settings}
    _show(found.to_json(), about, as_json=as_json)
    timer.report()


def eval_command(
    *,
    model: ModelName = None,
    lens: LensName = "auto",
    text: TextFile = None,
    dataset: Dataset = None,
    tokens: EvalTokens = 1024,
    seed: EvalSeed = 1_000_001,
    layers: EvalLayers = "all",
    loading: Loading,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    profile: o.ShowProfile = False,
    debug: o.Debug = False,
) -> None:
    """Judge a lens: divergence, marginal bias and agreement, raw against fitted.

    The columns are those of `iglens lens fit`. Give text that the lens was not fitted
    on; without any, the model writes some.
    """
    texts, source = _texts(text, dataset)
    timer = Profile(enabled=profile)
    quiet_libraries()
    with timer.stage("load"):
        decoder = loading.decoder(model, quiet=quiet)
    from ..explaining.lenses.evaluate import evaluate_lens
    from ..explaining.lenses.file import load_lens

    used = load_lens(decoder, lens)
    if not quiet:
        for note in used.notes:
            typer.echo(note, err=True)
    with progress_bars(quiet=quiet) as progress, timer.stage("judge"):
        found = evaluate_lens(
            decoder,
            used,
            texts,
            source=source,
            tokens=tokens,
            seed=seed,
            layers=layers,
            progress=progress,
        )
    _show(found.to_json(), {}, as_json=as_json)
    timer.report()


lens_app.command("fit")(grouped(fit_command))
lens_app.command("eval")(grouped(eval_command))

_JUDGED = 256
"""Held-out tokens of the table that `fit` prints."""


def _recipe(
    polish: bool, steps: int | None, step_tokens: int | None
) -> "Polish | None":
    """How to polish, if at all.

    Raises:
        ArgumentError: If an option needs `--polish`.
    """
    given = {"steps": steps, "tokens": step_tokens}
    chosen = {name: value for name, value in given.items() if value is not None}
    if chosen and not polish:
        raise ArgumentError("`--steps` and `--step-tokens` need `--polish`.")
    if not polish:
        return None
    from ..explaining.lenses.polish import Polish

    return Polish(**chosen)


def _texts(text: Path | None, dataset: str | None) -> tuple[Iterable[str] | None, str]:
    """The documents to read, and where they are from; None for the model's own.

    Raises:
        ArgumentError: If both are given.
        ArtifactError: If they cannot be read.
    """
    if text is not None and dataset is not None:
        raise ArgumentError("Give `--text` or `--dataset`, not both.")
    if text is not None:
        from ..explaining.lenses.text import documents_in

        return documents_in(text), text.name
    if dataset is not None:
        from ..explaining.lenses.dataset import dataset_texts

        return dataset_texts(dataset), f"dataset {dataset}"
    return None, ""


def _cached(decoder: "Decoder") -> Path:
    """The place of this model's lens in the cache, its folder made."""
    from ..explaining.lenses.cache import lens_path

    path = lens_path(decoder)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _show(found: dict[str, Any], about: dict[str, Any], *, as_json: bool) -> None:
    """The evaluation on stdout."""
    if as_json:
        typer.echo(json.dumps({**about, **found}, ensure_ascii=False))
        return
    from ..report.lens import lens_table

    typer.echo(lens_table(found))
