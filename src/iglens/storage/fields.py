"""Reading JSON that someone else may have written: every miss names its field."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, Int

from ..errors import ArtifactError

_T = TypeVar("_T")

_JSON_NAMES = {
    bool: "true or false",
    dict: "an object",
    float: "a number",
    int: "an integer",
    list: "a list",
    str: "text",
}


@dataclass(frozen=True)
class Fields:
    """A JSON object, read field by field.

    Every method raises `ArtifactError` if the field is missing or of another kind;
    the message reads on from "FILE cannot be read: ".

    Attributes:
        values: The object.
        where: Path of the object inside the document, to put before names.
    """

    values: Mapping[str, Any]
    where: str = ""

    def text(self, name: str) -> str:
        """A string."""
        return self._of(str, name)

    def text_or_none(self, name: str) -> str | None:
        """A string, or null."""
        return None if self._value(name) is None else self.text(name)

    def integer(self, name: str) -> int:
        """An integer."""
        return self._of(int, name)

    def integer_or_none(self, name: str) -> int | None:
        """An integer, or null."""
        return None if self._value(name) is None else self.integer(name)

    def number(self, name: str) -> float:
        """A number; null is NaN."""
        value = self._value(name)
        if value is None:
            return float("nan")
        return float(value) if type(value) is int else self._of(float, name)

    def entries(self, name: str) -> list[Any]:
        """A list of anything."""
        return self._of(list, name)

    def record(self, name: str) -> "Fields":
        """An object."""
        return Fields(self._of(dict, name), f"{self.where}{name}.")

    def records(self, name: str) -> list["Fields"]:
        """A list of objects."""
        return [
            Fields(self._checked(dict, entry, f"{name}[{i}]"), f"{name}[{i}].")
            for i, entry in enumerate(self.entries(name))
        ]

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings."""
        return tuple(
            self._checked(str, entry, f"{name}[{i}]")
            for i, entry in enumerate(self.entries(name))
        )

    def integers(self, name: str) -> tuple[int, ...]:
        """A list of integers."""
        return tuple(
            self._checked(int, entry, f"{name}[{i}]")
            for i, entry in enumerate(self.entries(name))
        )

    def floats(self, name: str, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
        """Nested lists of numbers; null is NaN."""
        values = self._array(name, shape, {int, float, type(None)})
        return values.astype(np.float64)

    def counts(self, name: str, shape: tuple[int, ...]) -> Int[np.ndarray, "..."]:
        """Nested lists of integers; null is 0."""
        values = self._array(name, shape, {int, type(None)})
        return np.where(values == None, 0, values).astype(np.int64)  # noqa: E711

    def booleans(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Nested lists of true and false."""
        return self._array(name, shape, {bool}).astype(bool)

    def _array(self, name: str, shape: tuple[int, ...], kinds: set[type]) -> np.ndarray:
        values = np.array(self.entries(name), dtype=object)
        if values.size == 0 and 0 in shape:
            values = values.reshape(shape)
        if values.shape != shape:
            raise ArtifactError(
                f"`{self.where}{name}` has shape {values.shape}, but the rows and "
                f"segments call for {shape}"
            )
        if odd := set(map(type, values.flat)) - kinds:
            names = sorted(_JSON_NAMES.get(kind, "null") for kind in odd)
            raise ArtifactError(f"`{self.where}{name}` holds {names[0]}")
        return values

    def _value(self, name: str) -> Any:
        if name not in self.values:
            raise ArtifactError(f"`{self.where}{name}` is missing")
        return self.values[name]

    def _of(self, kind: type[_T], name: str) -> _T:
        return self._checked(kind, self._value(name), name)

    def _checked(self, kind: type[_T], value: object, name: str) -> _T:
        # type(), not isinstance: JSON's true is no integer, though Python's is
        if type(value) is not kind:
            raise ArtifactError(
                f"`{self.where}{name}` is {_JSON_NAMES.get(type(value), 'null')}, "
                f"not {_JSON_NAMES[kind]}"
            )
        return value
