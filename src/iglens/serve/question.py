"""A question as it is asked over HTTP: the words of `iglens.explain`, strictly read."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ..attribution import BASELINES
from ..attribution.estimator import Rule
from ..attribution.path import Level
from ..readout.pruning import TOLERANCE, TOLERANCES
from ..records import Unit

MOST_TEXTS = 32
"""Targets, baselines or messages of one question."""


def _writable(text: str) -> str:
    """The text, unless no encoding could write it.

    Raises:
        ValueError: If half of a surrogate pair is in it.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("holds half of a surrogate pair, which is no text") from error
    return text


def _named(baseline: str) -> str:
    """The baseline, unless it would have a file read.

    Raises:
        ValueError: If it is neither a name nor another prompt.
    """
    if baseline in BASELINES or baseline.startswith("prompt:"):
        return baseline
    raise ValueError(f"is none of {', '.join(BASELINES)}, prompt:TEXT")


Text = Annotated[str, AfterValidator(_writable)]
Token = Annotated[int, Field(ge=0, lt=2**31)]
Ids = Annotated[list[Token], Field(min_length=1)]
Start = Annotated[Text, AfterValidator(_named)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Strict(BaseModel):
    """Takes what is named and of the right type, and nothing else."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Message(_Strict):
    """One turn of a conversation."""

    role: Text = Field(description="who speaks, such as `user`")
    content: Text = Field(description="what is said")


class AskedModel(_Strict):
    """The model that a saved question was asked of."""

    id: Text = Field(description="its name")
    weights: Text | None = Field(
        default=None, description="the hash of its weight files"
    )


class Question(_Strict):
    """What is to be explained and how; the words are those of `iglens.explain`."""

    prompt: Text | Ids | Annotated[list[Message], Field(max_length=MOST_TEXTS)] = Field(
        description="a text, a list of token ids, or with `chat` a list of messages"
    )
    target: (
        Text
        | Token
        | Annotated[list[Text | Token | Ids], Field(max_length=MOST_TEXTS)]
        | None
    ) = Field(
        default=None,
        description="a next token as text or id, a set as `a|b` or a list of ids, "
        "`@entropy` or `@kl`, or a list of these",
    )
    contrast: Text | Token | Ids | None = Field(
        default=None, description="a token or set as in `target`, or `@rival`"
    )
    answer: Text | Ids | None = Field(
        default=None,
        description="a text or a list of token ids that follows the prompt",
    )
    positions: Text | Ids = Field(
        default="answer",
        description="`answer`, `prompt`, `all`, a slice as `5:9`, or a list of indices",
    )
    layers: Text | Ids = Field(
        default="all",
        description="`all`, `1,5,30`, a slice as `::4`, or a list of numbers",
    )
    by: Level = Field(
        default="layer", description="`layer`, `sublayer`, `head`, `neuron` or `source`"
    )
    top: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=10, description="a whole number of parts to keep per layer, 1 to 1000"
    )
    unit: Unit | None = Field(
        default=None,
        description="`probability`, `log_probability`, `log_odds` or `logit`",
    )
    baseline: (
        Start | Annotated[list[Start], Field(min_length=1, max_length=MOST_TEXTS)]
    ) = Field(
        default="embedding",
        description=f"{', '.join(f'`{name}`' for name in BASELINES)}, `prompt:TEXT`, "
        "or a list of these; files are not read for a request",
    )
    lens: Text = Field(
        default="logit",
        description="`logit`, or the name of a lens the server started with",
    )
    estimator: Literal["observed", "gradient"] = Field(
        default="observed", description="`observed` or `gradient`"
    )
    n_steps: Annotated[int, Field(ge=1, le=4096)] = Field(
        default=64, description="a whole number of steps of the gradient, 1 to 4096"
    )
    rule: Rule = Field(
        default="midpoint", description="`midpoint`, `trapezoid` or `gauss-legendre`"
    )
    max_new_tokens: Annotated[int, Field(ge=0)] = Field(
        default=8, description="a whole number of tokens to generate at most, from 0"
    )
    sample: bool = Field(default=False, description="true to sample, false for greedy")
    temperature: Number = Field(
        default=1.0, description="a number above 0; needs `sample`"
    )
    top_p: Number = Field(default=1.0, description="a number in (0, 1]; needs `sample`")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        default=0, description="a whole number that repeats a sample; needs `sample`"
    )
    chat: bool = Field(
        default=False, description="true to apply the chat template, or false"
    )
    system: Text | None = Field(
        default=None, description="the system message of the chat, as text"
    )
    special_tokens: bool = Field(
        default=True, description="true to let the tokenizer add what it adds, or false"
    )
    diagnostics: bool | None = Field(
        default=None, description="true or false; null for up to 64 rows"
    )
    precision: Literal["float32", "float64"] | None = Field(
        default=None, description="`float32`, `float64` or null"
    )
    tolerance: Annotated[float, Field(ge=0, lt=TOLERANCES, allow_inf_nan=False)] = (
        Field(
            default=TOLERANCE,
            description="a probability, 0 to below 2^-10, under which a level may stay "
            "a bound",
        )
    )
    strict: bool = Field(
        default=True,
        description="true to refuse what cannot be verified, false to flag it",
    )
    model: AskedModel | None = Field(
        default=None,
        description="the model to ask, by its name; of a saved question the one it was "
        "asked of, by its weights, too. None for the one in memory",
    )
