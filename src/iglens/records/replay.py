"""A saved result beside the same question asked again."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from .attribution import Attribution
from .components import Components
from .difference import Difference

Verdict = Literal["identical", "within noise", "changed"]


@dataclass(frozen=True)
class Fact:
    """Something about how a result was made, then and now.

    Attributes:
        name: What it is, such as "torch" or "weights_sha256".
        then: Its value when the result was saved; None if it was not known.
        now: Its value now.
    """

    name: str
    then: str | None
    now: str | None


@dataclass(frozen=True)
class LargestChange:
    """The cell that moved most.

    Attributes:
        row: Its row.
        point: Its point on the path.
        layer: Layer of the point; None for a baseline off the path.
        change: Level now less level then, in the row's unit.
        floors: The same as a multiple of the row's combined noise floor; infinite
            where that is 0.
    """

    row: int
    point: int
    layer: int | None
    change: float
    floors: float


@dataclass(frozen=True, eq=False)
class Replay:
    """What running a saved result again gave; frozen, without torch.

    Attributes:
        difference: The new result less the saved one, row by row.
    """

    difference: Difference

    @property
    def then(self) -> Attribution:
        """The saved result."""
        return self.difference.a

    @property
    def now(self) -> Attribution:
        """The new one: the same tokens, rows and path."""
        return self.difference.b

    @property
    def verdict(self) -> Verdict:
        """The whole in a word.

        "identical": every level and model value has the same bits, and the credits of
        a gradient too. "within noise": no level and no model value moved by more than
        both noise floors together, no credit by more than twice that, and what was
        not finite still is not. "changed": anything else. Parts of segments count too:
        for "identical" by their bits, else by `parts_within_noise`.
        """
        credits = self.then.credits, self.now.credits
        beyond = self.difference.beyond_noise & ~_same(*credits)
        if not self.within_noise.all() or beyond[np.isfinite(credits[0])].any():
            return "changed"
        if not self.parts_within_noise:
            return "changed"
        exact = all(_same(then, now).all() for then, now in self._arrays)
        return "identical" if exact else "within noise"

    @property
    def is_reproduced(self) -> bool:
        """Whether nothing moved by more than rounding."""
        return self.verdict != "changed"

    @property
    def within_noise(self) -> Bool[np.ndarray, "rows values"]:
        """Levels, then the model's value, that moved by no more than rounding.

        So do those that were not finite and still are not.
        """
        then, now = (
            np.concatenate([side.levels, side.model_value[:, None]], 1)
            for side in (self.then, self.now)
        )
        limit = self.difference.noise_floor[:, None]
        with np.errstate(invalid="ignore"):
            return (np.abs(now - then) <= limit) | _same(then, now)

    @property
    def moved(self) -> Float[np.ndarray, "rows points"]:
        """`|level now - level then|`; NaN where either is not finite."""
        return np.abs(self.difference.levels)

    @property
    def largest(self) -> LargestChange | None:
        """The level that moved by most noise floors; None if none is finite."""
        moved, floors = self.moved, self.difference.noise_floor[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(moved == 0, 0.0, moved / floors)
        known = np.where(np.isfinite(moved), np.nan_to_num(share, nan=np.inf), -1.0)
        row, point = (int(i) for i in np.unravel_index(known.argmax(), known.shape))
        if known[row, point] < 0:
            return None
        return LargestChange(
            row,
            point,
            self.then.point_layers[point],
            float(self.difference.levels[row, point]),
            float(known[row, point]),
        )

    @property
    def facts(self) -> tuple[Fact, ...]:
        """Versions, weights and settings, then and now, the changed ones included."""
        then, now = _facts(self.then), _facts(self.now)
        return tuple(
            Fact(name, then.get(name), now.get(name))
            for name in dict.fromkeys((*then, *now))
        )

    @property
    def changed_facts(self) -> tuple[Fact, ...]:
        """Those that are not what they were."""
        return tuple(fact for fact in self.facts if fact.then != fact.now)

    @property
    def _arrays(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """What must have the same bits; observed credits follow from the levels."""
        names = ["levels", "model_value"]
        if self.then.estimator != "observed":
            names.append("credits")
        found = [(getattr(self.then, n), getattr(self.now, n)) for n in names]
        return found if self._parts is None else [*found, self._parts]

    @property
    def parts_moved(self) -> Float[np.ndarray, "rows parts"] | None:
        """`|credit now - credit then|` of every saved part; NaN where one is lost.

        None if no parts were saved.
        """
        if self._parts is None:
            return None
        then, now = self._parts
        return np.abs(now - then)

    @property
    def parts_within_noise(self) -> bool:
        """Whether no saved part is lost, or moved by more than rounding.

        Parts cancel, and rounding moves each in proportion to its size: a credit's
        noise and the certificates of both, times the largest part over the largest
        credit of the row where that is more than 1.
        """
        if self._parts is None:
            return True
        then, now = self._parts
        both = self.then.components, self.now.components
        tolerance = sum(side.tolerance for side in both if side is not None)
        limit = 2 * self.difference.noise_floor + tolerance
        sizes = [np.abs(some).max(1, initial=0.0) for some in (then, self.then.credits)]
        with np.errstate(divide="ignore", invalid="ignore"):
            limit = limit * np.fmax(1.0, sizes[0] / sizes[1])
            return bool(
                ((np.abs(now - then) <= limit[:, None]) | _same(then, now)).all()
            )

    @cached_property
    def _parts(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Credits of every saved part, then and now; NaN now where it is lost.

        Tokens behind all rows are not listed where these were selected and run again:
        nothing was read from them, then or now.
        """
        then, now = self.then.components, self.now.components
        if then is None:
            return None
        found = np.full_like(then.credits, np.nan)
        if now is not None:
            for row, credits in enumerate(then.credits):
                places = {key: place for place, key in enumerate(_keys(now, row))}
                for part, key in enumerate(_keys(then, row)):
                    if key in places:
                        found[row, part] = now.credits[row, places[key]]
                    elif key[1] == "source" and not credits[part]:
                        found[row, part] = 0.0
        return then.credits, found

    def to_json(self) -> dict[str, Any]:
        """The published JSON form; NaN and infinity become null."""
        from ..storage.replay_form import replay_to_json

        return replay_to_json(self)

    def __str__(self) -> str:
        """The verdict, then what moved and what changed."""
        from ..report.replay import summary

        return summary(self)


def _same(then: np.ndarray, now: np.ndarray) -> Bool[np.ndarray, "..."]:
    """Equal numbers; and what is not finite, where a JSON file keeps only that."""
    lost = np.isnan(then) & ~np.isfinite(now)
    return (then == now) | lost


def _keys(inside: Components, row: int) -> list[tuple[int, str, int, int]]:
    """What each part of a row is, and where."""
    numbers = (inside.segments, inside.indices[row], inside.sources[row])
    segments, indices, sources = (each.tolist() for each in numbers)
    return list(zip(segments, inside.kinds, indices, sources, strict=True))


def _facts(result: Attribution) -> dict[str, str | None]:
    """What may explain a change, by name."""
    model, settings = result.provenance.model, result.provenance.settings
    recorded = {
        name: None if (value := settings.get(name)) is None else str(value)
        for name in ("attn_implementation", "lens", "lens_sha256")
    }
    return {
        **dict(result.provenance.versions),
        "model": model.id,
        "revision": model.revision,
        "weights_sha256": model.weights_sha256,
        "architecture": model.architecture,
        "dtype": model.dtype,
        "weights_note": model.note,
        **recorded,
        "readout": f"{result.readout.kind}, {result.readout.dtype}",
    }
