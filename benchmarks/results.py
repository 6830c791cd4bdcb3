"""What was measured, as JSON: every pair's ratio, never a median alone."""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .pairs import Turns

RESULTS = Path(__file__).with_name("results.json")
"""Where the full form writes."""

SCHEMA = "iglens.benchmarks/1"


@dataclass(frozen=True)
class Measurement:
    """One thing measured against another, or one number.

    Attributes:
        case: What is asked, such as "map".
        what: What was timed.
        against: What it was timed against; empty for a number alone.
        model: On which model; empty where there is none.
        tokens: On how many tokens; 0 where that is no question.
        ratios: Time of the one by the time of the other, pair by pair.
        seconds: Of both, pair by pair, as they were timed.
        value: The number, where it is no ratio.
        unit: Its unit.
        note: What a reader must know.
    """

    case: str
    what: str
    against: str = ""
    model: str = ""
    tokens: int = 0
    ratios: Sequence[float] = ()
    seconds: Mapping[str, Sequence[float]] = field(default_factory=dict)
    value: float | None = None
    unit: str = ""
    note: str = ""

    @property
    def median(self) -> float:
        """Median of the ratios, or the number."""
        if self.value is not None:
            return self.value
        return statistics.median(self.ratios)

    @property
    def spread(self) -> tuple[float, float]:
        """The smallest and the largest ratio."""
        return min(self.ratios), max(self.ratios)

    @classmethod
    def of(
        cls,
        case: str,
        turns: Turns,
        what: str,
        against: str,
        *,
        counted: float = 1.0,
        **told: Any,
    ) -> "Measurement":
        """Of two ways that took turns; see `Turns.ratios`."""
        seconds = {name: turns.seconds[name] for name in (what, against)}
        ratios = turns.ratios(what, against, counted)
        return cls(case, what, against, ratios=ratios, seconds=seconds, **told)


@dataclass(frozen=True)
class Results:
    """A run of the suite.

    Attributes:
        about: Form, date, seed, machine, versions, text.
        measurements: Everything measured.
        neighbours: Of every neighbour its release, and why it could not be measured.
    """

    about: dict[str, Any]
    measurements: tuple[Measurement, ...]
    neighbours: dict[str, dict[str, Any]]

    def of(self, case: str, **asked: Any) -> Iterator[Measurement]:
        """Measurements of a case, with such attributes."""
        for each in self.measurements:
            if each.case == case and all(
                getattr(each, name) == value for name, value in asked.items()
            ):
                yield each

    def save(self, path: Path) -> None:
        """Write it, numbers to four digits."""
        told = _rounded({"schema": SCHEMA, **asdict(self)})
        every = told.pop("measurements")
        lines = ",\n  ".join(json.dumps(each, ensure_ascii=False) for each in every)
        head = json.dumps(told, indent=1, ensure_ascii=False).removesuffix("\n}")
        text = f'{head},\n "measurements": [\n  {lines}\n ]\n}}\n'
        path.write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, path: Path = RESULTS) -> "Results":
        """What was written.

        Raises:
            ValueError: If it is of another form.
        """
        told = json.loads(path.read_text(encoding="utf-8"))
        if told.pop("schema", None) != SCHEMA:
            raise ValueError(f"{path} holds no results of this suite")
        every = tuple(Measurement(**each) for each in told["measurements"])
        return cls(told["about"], every, told["neighbours"])


def _rounded(value: Any) -> Any:
    """The same with four digits per number."""
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
