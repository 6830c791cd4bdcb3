"""One line of a corpus: what is asked of it, and what else it says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ArgumentError

Scalar = str | int | float | bool | None
"""What a column of metadata may hold."""

_PROMPTS = ("prompt", "text", "input_ids")
"""Columns a prompt is looked for in, unless one is named."""


@dataclass(frozen=True)
class Broken:
    """A line that is no row.

    Attributes:
        reason: What is wrong with it.
    """

    reason: str


Line = Mapping[str, Any] | Broken
"""What an input gives, line by line."""


@dataclass(frozen=True)
class Columns:
    """Which columns hold what; None for the usual name, where there is such a column.

    Attributes:
        prompt: Text, token ids, or messages; usually "prompt", "text" or "input_ids".
        target: Next token, or several; usually "target".
        answer: Continuation; usually "answer".
        id: Name of the row; usually "id".
    """

    prompt: str | None = None
    target: str | None = None
    answer: str | None = None
    id: str | None = None

    def found_in(self, names: Mapping[str, str]) -> "Columns":
        """The same with the columns that are there.

        Args:
            names: Type of every column of the input.

        Raises:
            ArgumentError: If one was named that is not there, or there is no prompt.
        """
        for given in (self.prompt, self.target, self.answer, self.id):
            if given is not None and given not in names:
                raise ArgumentError(
                    f"There is no column {given!r}; the input has {_listed(names)}."
                )
        prompt = self.prompt or next((n for n in _PROMPTS if n in names), None)
        if prompt is None:
            raise ArgumentError(
                f"No column holds the prompt: the input has {_listed(names)}. Name it "
                "with `--prompt-column` (usually it is called prompt or text)."
            )
        named = {"target": self.target, "answer": self.answer, "id": self.id}
        usual = {k: v or (k if k in names else None) for k, v in named.items()}
        if usual["target"] and usual["answer"]:
            if self.answer and not self.target:
                usual["target"] = None
            elif self.target and not self.answer:
                usual["answer"] = None
            else:
                raise ArgumentError(
                    "The input has both a target (next token) and an answer (text); "
                    "name the one to explain with `--target-column` or "
                    "`--answer-column`."
                )
        return Columns(prompt, **usual)

    @property
    def used(self) -> set[str]:
        """The columns that are no metadata."""
        return {n for n in (self.prompt, self.target, self.id) if n is not None}


@dataclass(frozen=True)
class Item:
    """A row of the input.

    Attributes:
        index: Its place in the input, from 0.
        id: What it calls itself, or its place.
        prompt: Text, token ids, or messages; None if it has none.
        target: What to explain as the next token, if it says so.
        answer: What to explain as the continuation, if it says so.
        metadata: Its other columns.
        broken: Why it is none, if it is none.
    """

    index: int
    id: str
    prompt: Any = None
    target: Any = None
    answer: Any = None
    metadata: Mapping[str, Scalar] = field(default_factory=dict)
    broken: str | None = None

    @classmethod
    def of(cls, index: int, line: Line, columns: Columns) -> "Item":
        """The row that a line is."""
        if isinstance(line, Broken):
            return cls(index, str(index), broken=line.reason)
        known = columns.used
        metadata = {n: _scalar(v) for n, v in line.items() if n not in known}
        own = line.get(columns.id) if columns.id else None
        name = str(index) if own is None else str(own)
        prompt = line.get(columns.prompt or "")
        broken = None
        if prompt is None:
            broken = f"Column {columns.prompt!r} is empty: there is no prompt."
        elif not isinstance(prompt, str | list):
            broken = (
                f"Column {columns.prompt!r} holds a {type(prompt).__name__}; a prompt "
                "is text, a list of token ids, or a list of messages."
            )
        return cls(
            index,
            name,
            prompt,
            line.get(columns.target) if columns.target else None,
            line.get(columns.answer) if columns.answer else None,
            metadata,
            broken,
        )


def _scalar(value: Any) -> Scalar:
    """A value that fits a cell: what is nested becomes text."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)


def _listed(names: Mapping[str, str]) -> str:
    """Names of columns, in words."""
    return ", ".join(repr(name) for name in names) or "none"
