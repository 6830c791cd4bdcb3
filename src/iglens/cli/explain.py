"""`iglens explain`: the token x layer map of one text."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ArgumentError
from .loading import (
    AcceptLicence,
    Attention,
    Device,
    DeviceMap,
    Dtype,
    Model,
    Revision,
    TrustRemoteCode,
    load_decoder,
)
from .output import checked_outputs, show, write_all
from .talk import Profile, quiet_libraries

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ..attribution.estimator import Rule
    from ..model.generate import Sampling
    from ..records import Unit

_TEXT, _READING, _OUTPUT = "What is explained", "How it is read", "What comes out"


def explain_command(
    prompt: Annotated[str, typer.Argument(help="Text to explain; - reads stdin.")],
    model: Model = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Next token to explain, or a set as ' Paris|Paris'; repeatable.",
            rich_help_panel=_TEXT,
        ),
    ] = None,
    answer: Annotated[
        str | None,
        typer.Option(
            help="Text to explain as the continuation.", rich_help_panel=_TEXT
        ),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(help="Tokens to generate.", min=0, rich_help_panel=_TEXT)
    ] = 8,
    sample: Annotated[
        bool,
        typer.Option(
            "--sample", help="Sample instead of greedy.", rich_help_panel=_TEXT
        ),
    ] = False,
    temperature: Annotated[
        float,
        typer.Option(help="Divides the logits to sample from.", rich_help_panel=_TEXT),
    ] = 1.0,
    top_p: Annotated[
        float,
        typer.Option(help="Share of probability to sample.", rich_help_panel=_TEXT),
    ] = 1.0,
    seed: Annotated[
        int, typer.Option(help="Repeats a sample.", rich_help_panel=_TEXT)
    ] = 0,
    chat: Annotated[
        bool,
        typer.Option(
            "--chat/--raw", help="Apply the chat template.", rich_help_panel=_TEXT
        ),
    ] = False,
    system: Annotated[
        str | None,
        typer.Option(help="System message of the chat.", rich_help_panel=_TEXT),
    ] = None,
    special_tokens: Annotated[
        bool,
        typer.Option(
            help="Let the tokenizer add what it adds to a text.", rich_help_panel=_TEXT
        ),
    ] = True,
    positions: Annotated[
        str,
        typer.Option(
            help="Predicted tokens: answer, prompt, all, or a slice as 5:9.",
            rich_help_panel=_TEXT,
        ),
    ] = "answer",
    layers: Annotated[
        str,
        typer.Option(
            help="Layers to stop at: all, 1,5,30 or ::4.", rich_help_panel=_READING
        ),
    ] = "all",
    unit: Annotated[
        str,
        typer.Option(
            help="probability, log_probability or log_odds (nats).",
            rich_help_panel=_READING,
        ),
    ] = "probability",
    baseline: Annotated[
        str,
        typer.Option(
            help="embedding, zero, mean, paper-mean, or vector:FILE.npy.",
            rich_help_panel=_READING,
        ),
    ] = "embedding",
    estimator: Annotated[
        str,
        typer.Option(
            help="observed (exact) or gradient (approximate).",
            rich_help_panel=_READING,
        ),
    ] = "observed",
    n_steps: Annotated[
        int,
        typer.Option(help="Steps of the gradient.", rich_help_panel=_READING),
    ] = 64,
    rule: Annotated[
        str,
        typer.Option(
            help="Its rule: midpoint, trapezoid or gauss-legendre.",
            rich_help_panel=_READING,
        ),
    ] = "midpoint",
    precision: Annotated[
        str | None,
        typer.Option(
            help="Dtype of the readout: float32 or float64.", rich_help_panel=_READING
        ),
    ] = None,
    dtype: Dtype = None,
    device: Device = None,
    device_map: DeviceMap = None,
    revision: Revision = None,
    attn_implementation: Attention = None,
    trust_remote_code: TrustRemoteCode = False,
    accept_licence: AcceptLicence = False,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "-o",
            "--output",
            help="File to write: .json, .safetensors, .csv, .parquet; repeatable.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    output_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="Format of the output files, if not by extension.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print JSON on stdout.", rich_help_panel=_OUTPUT),
    ] = False,
    diagnostics: Annotated[
        bool | None,
        typer.Option(
            "--diagnostics/--no-diagnostics",
            help="Ranks, lens divergence, top tokens; default: up to 64 rows.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            help="Refuse what cannot be verified, or flag it.",
            rich_help_panel=_READING,
        ),
    ] = True,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No talk.", rich_help_panel=_OUTPUT)
    ] = False,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile", help="Say where the time went.", rich_help_panel=_OUTPUT
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show tracebacks.", rich_help_panel=_OUTPUT),
    ] = False,
) -> None:
    """Show at which layers the probability of each token became readable.

    The model continues PROMPT and every token it adds is explained; --target and
    --answer explain another token or text instead. Credits add up exactly to the
    change of the token's probability, on a readout that is checked against the
    model's own distribution.
    """
    outputs = checked_outputs(output or [], output_format)
    text = _prompt(prompt)
    sampling = _sampling(sample, temperature, top_p, seed)
    start = _baseline(baseline)
    timer = Profile(enabled=profile)
    quiet_libraries()
    with timer.stage("load"):
        decoder = load_decoder(
            model,
            dtype=dtype,
            device=device,
            device_map=device_map,
            revision=revision,
            attn_implementation=attn_implementation,
            trust_remote_code=trust_remote_code,
            accept_licence=accept_licence,
            quiet=quiet,
        )
    from ..explaining import explain

    with timer.stage("explain"):
        result = explain(
            decoder,
            text,
            target=target,
            answer=answer,
            positions=positions,
            layers=layers,
            unit=_unit(unit),
            baseline=start,
            estimator=estimator,
            n_steps=n_steps,
            rule=_rule(rule),
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            chat=chat,
            system=system,
            special_tokens=special_tokens,
            diagnostics=diagnostics,
            precision=_precision(precision),
            strict=strict,
        )
    with timer.stage("render"):
        write_all(result, outputs, quiet=quiet)
        if as_json:
            typer.echo(json.dumps(result.to_json(), ensure_ascii=False))
        else:
            show(result, quiet=quiet)
    timer.report()


def _prompt(prompt: str) -> str:
    """The prompt, from stdin if it is a dash; one final line end is cut there."""
    text = sys.stdin.read().removesuffix("\n") if prompt == "-" else prompt
    if not text:
        raise ArgumentError("`PROMPT` is empty: there is nothing to explain.")
    return text


def _sampling(
    sample: bool, temperature: float, top_p: float, seed: int
) -> "Sampling | None":
    """How to sample, if at all."""
    if not sample:
        if (temperature, top_p, seed) != (1.0, 1.0, 0):
            raise ArgumentError(
                "`--temperature`, `--top-p` and `--seed` need `--sample`; without it "
                "the continuation is greedy."
            )
        return None

    from ..model.generate import Sampling

    return Sampling(temperature, top_p, seed)


def _precision(name: str | None) -> "torch.dtype | None":
    """The readout's dtype by its name."""
    if name is None:
        return None
    if name not in ("float32", "float64"):
        raise ArgumentError(f"`--precision` is {name!r}; use float32 or float64.")
    import torch

    return torch.float32 if name == "float32" else torch.float64


def _baseline(text: str) -> "str | np.ndarray":
    """A baseline by its name, or a vector from a file."""
    if not text.startswith("vector:"):
        return text
    import numpy as np

    path = Path(text.removeprefix("vector:"))
    try:
        vector = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ArgumentError(
            f"`--baseline` {text!r} cannot be read as a .npy file: {error}."
        ) from error
    if not isinstance(vector, np.ndarray) or vector.dtype.kind != "f":
        raise ArgumentError(f"`--baseline` {text!r} holds no array of real numbers.")
    return vector


def _unit(name: str) -> "Unit":
    """A unit by its name."""
    from ..records import UNITS

    for unit in UNITS:
        if unit == name:
            return unit
    raise ArgumentError(f"`--unit` is {name!r}; known are {', '.join(UNITS)}.")


def _rule(name: str) -> "Rule":
    """A rule of the gradient estimator by its name."""
    from ..attribution.estimator import RULES

    for rule in RULES:
        if rule == name:
            return rule
    raise ArgumentError(f"`--rule` is {name!r}; known are {', '.join(RULES)}.")
