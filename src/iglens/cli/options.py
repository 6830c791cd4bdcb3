"""The options that say what is explained and how, the same words for every command."""

from pathlib import Path
from typing import Annotated

import typer

_TEXT, _READING, _OUTPUT = "What is explained", "How it is read", "What comes out"


def _text(*names: str, help: str, min: int | None = None) -> typer.models.OptionInfo:
    """An option that says what is explained."""
    return typer.Option(*names, help=help, min=min, rich_help_panel=_TEXT)


def _reading(*names: str, help: str, min: int | None = None) -> typer.models.OptionInfo:
    """An option that says how it is read."""
    return typer.Option(*names, help=help, min=min, rich_help_panel=_READING)


def _output(
    *names: str, help: str, show_default: bool | str = True
) -> typer.models.OptionInfo:
    """An option that says what comes out."""
    return typer.Option(
        *names, help=help, show_default=show_default, rich_help_panel=_OUTPUT
    )


PromptText = Annotated[str, typer.Argument(help="Text to explain; - reads stdin.")]
Target = Annotated[
    list[str] | None,
    _text(
        help="Next token to explain, a set as ' Paris|Paris', @entropy or @kl; "
        "repeatable."
    ),
]
Contrast = Annotated[
    str | None,
    _text(help="Explain the difference to this token; @rival: the likeliest other."),
]
Answer = Annotated[str | None, _text(help="Text to explain as the continuation.")]
MaxNewTokens = Annotated[int, _text(help="Tokens to generate.", min=0)]
Sample = Annotated[bool, _text("--sample", help="Sample instead of greedy.")]
Temperature = Annotated[float, _text(help="Divides the logits to sample from.")]
TopP = Annotated[float, _text(help="Share of probability to sample.")]
Seed = Annotated[int, _text(help="Repeats a sample.")]
Chat = Annotated[bool, _text("--chat/--raw", help="Apply the chat template.")]
System = Annotated[str | None, _text(help="System message of the chat.")]
SpecialTokens = Annotated[
    bool, _text(help="Let the tokenizer add what it adds to a text.")
]
Positions = Annotated[
    str, _text(help="Predicted tokens: answer, prompt, all, or a slice as 5:9.")
]

Layers = Annotated[str, _reading(help="Layers to stop at: all, 1,5,30 or ::4.")]
By = Annotated[
    str,
    _reading(
        help="How far down: layer; sublayer (attention, MLP); head, neuron (or expert) "
        "or source (what heads read from each token)."
    ),
]
Top = Annotated[
    int,
    _reading(
        help="Heads, neurons or (head, token) pairs kept per layer; the rest is summed "
        "as others.",
        min=1,
    ),
]
AlongPath = Annotated[
    str,
    _reading(
        "--path",
        help="blocks (what became readable at each layer), or gates (what layers do "
        "through later ones too; runs the model some hundred times per token).",
    ),
]
Unit = Annotated[
    str | None,
    _reading(
        help="probability, log_probability, log_odds (nats) or logit; default: "
        "probability, or the logit of a reward model."
    ),
]
Baseline = Annotated[
    list[str] | None,
    _reading(
        help="embedding (default), zero, mean, paper-mean, corpus:FILE, prompt:TEXT or "
        "vector:FILE.npy; several are averaged."
    ),
]
Lens = Annotated[
    str, _reading(help="logit, auto (the one fitted on this model), or a file.")
]
Sensitivity = Annotated[
    bool,
    _reading("--sensitivity", help="Say what the choice of baseline changes."),
]
Rivals = Annotated[
    int | None,
    _reading(
        help="Name so many tokens that gained and lost most, at every layer that "
        "matters.",
        min=1,
    ),
]
Promotion = Annotated[
    bool,
    _reading(
        "--promotion",
        help="Split log-odds: target promoted or rivals demoted, sharper or another "
        "preference.",
    ),
]
Interaction = Annotated[
    bool,
    _reading(
        "--interaction",
        help="Say what the parts of a layer do only together; with --by sublayer.",
    ),
]
Estimator = Annotated[str, _reading(help="observed (exact) or gradient (approximate).")]
NSteps = Annotated[int, _reading(help="Steps of the gradient.")]
Rule = Annotated[str, _reading(help="Its rule: midpoint, trapezoid or gauss-legendre.")]
Precision = Annotated[
    str | None, _reading(help="Dtype of the readout: float32 or float64.")
]
Strict = Annotated[bool, _reading(help="Refuse what cannot be verified, or flag it.")]

OutputFiles = Annotated[
    list[Path] | None,
    _output(
        "-o",
        "--output",
        help="File to write: .json, .safetensors, .csv, .parquet, .html, .md, .svg, "
        ".png, .pdf; repeatable.",
    ),
]
OutputFormat = Annotated[
    str | None,
    _output("--format", help="Format of the output files, if not by extension."),
]
AsJson = Annotated[bool, _output("--json", help="Print JSON on stdout.")]
Diagnostics = Annotated[
    bool | None,
    _output(
        "--diagnostics/--no-diagnostics",
        help="Ranks, lens divergence, top tokens; default: up to 64 rows.",
    ),
]
Tolerance = Annotated[
    float,
    _output(
        help="Probability below which a level may stay a bound, shown as such; 0: "
        "none.",
        show_default="2^-24",
    ),
]
Quiet = Annotated[bool, _output("--quiet", help="No talk.")]
ShowProfile = Annotated[bool, _output("--profile", help="Say where the time went.")]
Debug = Annotated[bool, _output("--debug", help="Show tracebacks.")]
