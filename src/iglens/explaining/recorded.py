"""What a result says of how it was made, and the same question made of it again."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..attribution import BASELINES, AbstractEstimator, Gradient, Observed, Scalar
from ..attribution.estimator import RULES
from ..attribution.path import Level, check_level
from ..attribution.rows import Explained
from ..errors import ArgumentError
from ..model.loading.embedded import is_embedded
from ..readout.lens import AbstractLens
from ..records import Attribution
from .reader import Reader
from .start import StartLike

_GRADIENT = re.compile(r"gradient\((\S+), n_steps=(\d+)\)")

_LOOSE = {"unverified", "unfaithful", "non_finite_state", "uncertified"}
"""Flags that only a run without `strict` leaves."""


@dataclass(frozen=True)
class RecordedModel:
    """What to load to have the model of a result again.

    Attributes:
        name: Hub id, folder, file, or name of an embedded model.
        revision: Commit of the hub repository, if it is one.
        dtype: The dtype it computed in.
        attn_implementation: The attention it ran with, if known.
    """

    name: str
    revision: str | None
    dtype: str
    attn_implementation: str | None


def recorded_model(result: Attribution) -> RecordedModel:
    """The model a result names.

    Raises:
        ArgumentError: If it was handed over loaded, so that nothing names it.
    """
    info = result.provenance.model
    if info.path is None and info.id == info.architecture:
        raise ArgumentError(
            f"This result is of a {info.id} that was handed over loaded, so nothing "
            "says where it is. Pass `decoder` (on the command line, `-m`)."
        )
    attention = result.provenance.settings.get("attn_implementation")
    name, revision = _place(info.id, info.path, info.revision)
    return RecordedModel(
        name, revision, info.dtype, attention if isinstance(attention, str) else None
    )


def _place(name: str, path: str | None, revision: str | None) -> tuple[str, str | None]:
    """What to load by, and the revision where that is a hub id."""
    given = Path(name).expanduser()
    if is_embedded(name) or path is None:
        return name, revision
    folder = Path(path)
    if given.suffix == ".gguf":
        same = given.parent.resolve() == folder
        return (name if same else str(folder / given.name)), None
    if given.exists() and given.resolve() == folder:
        return name, None
    return (name, revision) if revision is not None else (path, None)


def recorded_reader(
    result: Attribution,
    baseline: StartLike | Sequence[StartLike] | None = None,
    lens: str | Path | AbstractLens | None = None,
) -> Reader:
    """The reader that read a result.

    Args:
        result: The result.
        baseline: Where its paths start; None for what it says.
        lens: What it was read through; None for what it says.

    Raises:
        ArgumentError: If the result does not say enough; says what to pass.
    """
    return Reader(
        unit=result.unit,
        baseline=_baseline(result) if baseline is None else baseline,
        lens=_lens(result) if lens is None else lens,
        estimator=_estimator(result.estimator),
        precision=getattr(torch, result.readout.dtype),
        by=recorded_level(result),
        tolerance=result.readout.pruned_below,
    )


def recorded_level(result: Attribution) -> Level:
    """How far down a result goes.

    Raises:
        ArgumentError: If that is directions of the user's own.
    """
    if result.components is not None:
        if result.components.by == "direction":
            raise ArgumentError(
                "This result shares credits over directions of your own, which no file "
                "holds, so it cannot be run again. Make it anew from Python, with "
                "`attribute(…, directions=…)`."
            )
        return check_level(result.components.by)
    parted = any(segment.is_part for segment in result.segments)
    return "sublayer" if parted else "layer"


def _baseline(result: Attribution) -> list[StartLike]:
    """Where the paths start, by name."""
    known = result.provenance.settings.get("baseline")
    names = known if isinstance(known, list) else [result.baseline_kind]
    found: list[StartLike] = []
    for name in names:
        text = name if isinstance(name, str) else ""
        if text not in BASELINES and not text.startswith(("corpus:", "prompt:")):
            raise ArgumentError(
                f"This result starts at a baseline ({result.baseline_kind}) that it "
                "does not hold. Pass the same one as `baseline`, from Python."
            )
        found.append(text)
    return found


def _lens(result: Attribution) -> str:
    """What the states are read through, by name."""
    path = result.provenance.settings.get("lens")
    if result.lens == "logit":
        return "logit"
    if not isinstance(path, str):
        raise ArgumentError(
            f"This result was read through a lens ({result.lens}) that no file is "
            "known of. Pass it as `lens`, from Python."
        )
    return path


def _estimator(name: str) -> AbstractEstimator:
    """An estimator by what it calls itself."""
    if name == "observed":
        return Observed()
    if found := _GRADIENT.fullmatch(name):
        for rule in RULES:
            if rule == found[1]:
                return Gradient(int(found[2]), rule)
    raise ArgumentError(
        f"This result was made with the estimator {name!r}, which is none of iglens's "
        "own and cannot be run again."
    )


def recorded_rows(
    result: Attribution, scalars: Sequence[Scalar] = (), shift: int = 0
) -> list[tuple[int, Explained]]:
    """Position and target of every row.

    Args:
        result: The result.
        scalars: The user's own, which a result keeps but the name of.
        shift: Added to every position.

    Raises:
        ArgumentError: If a scalar is missing.
    """
    own = {scalar.target.key: scalar for scalar in scalars}
    found: list[tuple[int, Explained]] = []
    for position, target in zip(result.positions.tolist(), result.targets, strict=True):
        if target.kind == "scalar" and target.key not in own:
            raise ArgumentError(
                f"This result explains {target.text!r}, a scalar of a user's own: a "
                "Python function, which no file holds. Pass it in `scalars`, from "
                "Python, or `select` the other rows."
            )
        found.append((position + shift, own.get(target.key, target)))
    return found


def was_strict(result: Attribution) -> bool:
    """Whether nothing was let through that `strict` refuses."""
    return not any(flag.kind in _LOOSE for flag in result.flags)
