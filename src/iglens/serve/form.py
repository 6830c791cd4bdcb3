"""The form in which people ask: the fields of a question, filled in."""

from collections.abc import Iterable
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from ..attribution import BASELINES
from ..attribution.path import LEVELS
from ..records import UNITS
from .question import Question
from .served import Served

EXAMPLE = "The capital of France is"
"""What stands in an empty form, to be run by one click."""

_LEVELS = {
    "layer": "layer",
    "sublayer": "attention and MLP",
    "head": "heads",
    "neuron": "neurons",
    "source": "heads and what they read",
}
_UNITS = {
    "probability": "probability",
    "log_probability": "log-probability",
    "log_odds": "log-odds",
    "logit": "logit",
}


def form(served: Served, asked: Question | None, text: str) -> str:
    """The form as markup.

    Args:
        served: The model, which decides what can be chosen.
        asked: The question that is shown; None for an empty form.
        text: The prompt to show.
    """
    labels = served.face.labels
    question = asked or Question(prompt=EXAMPLE)
    start, other = _baseline(question.baseline)
    slots: dict[str, Any] = {
        "text": _text(text),
        "by": _options({k: _LEVELS.get(k, k) for k in LEVELS}, question.by),
        "unit": _options({"": "usual", **_UNITS}, question.unit or ""),
        "new": min(question.max_new_tokens, served.limits.new_tokens),
        "most_new": served.limits.new_tokens,
        "target": _text(_lines(question.target)),
        "contrast": _value(question.contrast),
        "answer": _value(question.answer),
        "positions": _value(question.positions),
        "layers": _value(question.layers),
        "top": question.top,
        "baseline": _options([*BASELINES, "prompt"], start),
        "other": escape(other),
        "lens": _options(served.face.lenses, question.lens),
        "system": _value(question.system),
        "chat": _checked(question.chat),
        "sample": _checked(question.sample),
        "temperature": question.temperature,
        "top_p": question.top_p,
        "seed": question.seed,
        "no_chat": "" if served.face.chat else " hidden",
        "model": _options(served.models, served.face.model.id),
        "no_model": "" if len(served.models) > 1 else " hidden",
        "no_words": " hidden" if labels else "",
        "target_name": "Label" if labels else "Next token",
        "tokens": served.limits.tokens,
    }
    assert set(_UNITS) == set(UNITS)  # else a unit could not be chosen
    return _template().format(**slots)


@cache
def _template() -> str:
    """The markup with its slots."""
    folder = files("iglens.serve") / "assets"
    return (folder / "form.html").read_text(encoding="utf-8")


def _baseline(baseline: str | list[str]) -> tuple[str, str]:
    """What is chosen as a baseline, and the text of another prompt."""
    first = baseline if isinstance(baseline, str) else baseline[0]
    if first.startswith("prompt:"):
        return "prompt", first.removeprefix("prompt:")
    return first, ""


def _options(choices: dict[str, str] | Iterable[str], chosen: str) -> str:
    """The choices of a list, one of them chosen."""
    named = choices if isinstance(choices, dict) else {name: name for name in choices}
    return "".join(
        f'<option value="{escape(value)}"{" selected" * (value == chosen)}>'
        f"{escape(name)}</option>"
        for value, name in named.items()
    )


def _lines(value: Any) -> str:
    """Several targets, one in each line; ids in brackets are left to their link."""
    items = value if isinstance(value, list) else [value]
    return "\n".join(item for item in items if isinstance(item, str))


def _value(value: Any) -> str:
    """A text as the value of a field; numbers and lists are left to their link."""
    return escape(value) if isinstance(value, str) else ""


def _text(text: str) -> str:
    """A text inside of a text area, which drops a first line end."""
    return "\n" + escape(text)


def _checked(on: bool) -> str:
    """The state of a box."""
    return " checked" if on else ""
