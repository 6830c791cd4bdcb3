"""The labels of a classifier, which are to it what tokens are to a language model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..errors import TargetError
from ..records import Target


@dataclass(frozen=True)
class Labels:
    """Names of a classifier's labels, in the order of its logits.

    Example:
        >>> labels = Labels(("NEGATIVE", "POSITIVE"))
        >>> labels.target("POSITIVE").ids, labels.target("NEGATIVE|POSITIVE").ids
        ((1,), (0, 1))
    """

    names: tuple[str, ...]

    def target(self, named: str | int) -> Target:
        """The label, or the set of labels split at `|`, of some name or number.

        Raises:
            TargetError: If there is no such label; says which there are.
        """
        if isinstance(named, str) and named not in self.names:
            ids = [self._number(piece) for piece in named.split("|")]
        else:
            ids = [self._number(named)]
        return Target(tuple(ids), "|".join(self.names[label] for label in ids))

    def show(self, label: int) -> str:
        """Name of a label."""
        return self.names[label]

    def _number(self, named: str | int) -> int:
        """Number of one label."""
        if isinstance(named, str) and named in self.names:
            return self.names.index(named)
        if not isinstance(named, str) and 0 <= named < len(self.names):
            return named
        listed = ", ".join(f"{number} {name!r}" for number, name in self._some())
        raise TargetError(
            f"`target` {named!r} is no label of this model, which has {listed}."
        )

    def _some(self) -> list[tuple[int | str, str]]:
        """Numbers and names for a message, the first of many."""
        listed: list[tuple[int | str, str]] = [*enumerate(self.names)]
        return listed if len(listed) <= 12 else [*listed[:12], ("…", self.names[-1])]


def labels_of(model: nn.Module, n_labels: int) -> Labels:
    """The labels of a model, by the names of its configuration where it has them."""
    config: Any = getattr(model, "config", None)
    named = getattr(config, "id2label", None)
    if not isinstance(named, Mapping) or len(named) != n_labels:
        named = {}
    names = (named.get(number, f"LABEL_{number}") for number in range(n_labels))
    return Labels(tuple(map(str, names)))
