"""From the states that were read to the points of the path.

The two differ only where parts of a block stand side by side: there, levels are read
with every selection of parts added, and the points between the parts get the level at
which each part's credit is its mean over all orders.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from ..errors import ArgumentError
from .estimator import AbstractEstimator, Observed
from .path import Block, Path
from .reading import PathReading


def folded(path: Path, reading: PathReading) -> PathReading:
    """What was read, at the points of the path.

    Points between parts that stand side by side are no states: they have no rank, no
    divergence and no top tokens.
    """
    if not any(side_by_side(block) for block in path.blocks):
        return reading
    kept, made = _points(path)
    levels, starts = reading.levels[:, kept], reading.starts[:, np.array(kept[1:]) - 1]
    for block, first in made:
        steps = _shares(block, reading)
        before = reading.starts[:, [block.start]]
        reached = before + np.cumsum(steps, axis=1)
        inner = slice(first, first + steps.shape[1] - 1)
        levels[:, inner] = reached[:, :-1]
        starts[:, first - 1 : inner.stop] = np.concatenate(
            [before, reached[:, :-1]], axis=1
        )
    return replace(
        reading, levels=levels, starts=starts, **_of_states(reading, kept, made)
    )


def check_estimator(path: Path, by: str, estimator: AbstractEstimator) -> None:
    """Refuse slopes where one line does not give the credit, or cannot be shared.

    Raises:
        ArgumentError: If the estimator is not the observed one where it must be.
    """
    if isinstance(estimator, Observed):
        return
    if by not in ("layer", "sublayer"):
        raise ArgumentError(
            f"Credits by {by}: below the parts of blocks, integrals are certified, and "
            "close on the observed credits. Leave the estimator out."
        )
    for block in path.blocks:
        if side_by_side(block):
            raise ArgumentError(
                f"The parts of block {block.layer} stand side by side, and the "
                "gradient estimator follows one line. Use the observed estimator, or "
                "whole layers."
            )


def side_by_side(block: Block) -> bool:
    """Whether the parts of a block are added in all orders."""
    return block.parts is not None and block.parts.kind == "parallel"


def _points(path: Path) -> tuple[list[int], list[tuple[Block, int]]]:
    """The state of every point, and the blocks whose inner points are no states.

    Returns:
        Indices of states (for inner points of parallel blocks any of the block), and
        parallel blocks with the index of their first inner point.
    """
    kept, made = [0], []
    for block in path.blocks:
        if block.parts is not None and side_by_side(block):
            made.append((block, len(kept)))
            kept += [block.start + 1] * (len(block.parts.names) - 1)
        else:
            kept += range(block.start + 1, block.end)
        kept.append(block.end)
    return kept, made


def _shares(block: Block, reading: PathReading) -> Float[np.ndarray, "rows parts"]:
    """Each part's credit, the mean over all orders."""
    assert block.parts is not None  # of parallel blocks only
    levels = reading.levels[:, block.start : block.end + 1].copy()
    levels[:, 0] = reading.starts[:, block.start]
    found = []
    with np.errstate(invalid="ignore"):  # levels that are not finite are flagged
        for part in range(len(block.parts.names)):
            moved = [
                weight * (levels[:, end] - levels[:, start])
                for start, end, weight in block.parts.strokes(part)
            ]
            found.append(np.sum(moved, axis=0))
    return np.stack(found, 1)


def _of_states(
    reading: PathReading, kept: list[int], made: list[tuple[Block, int]]
) -> dict[str, np.ndarray]:
    """Everything else, with nothing at the points that are no states."""
    no_state = np.zeros(len(kept), bool)
    for block, first in made:
        assert block.parts is not None
        no_state[first : first + len(block.parts.names) - 1] = True
    nothing = {
        "top1": False,
        "pruned": False,
        "rank": 0,
        "kl": np.nan,
        "top_ids": -1,
        "top_probabilities": np.nan,
    }
    found = {}
    for name, none in nothing.items():
        found[name] = getattr(reading, name)[:, kept]
        found[name][:, no_state] = none
    slopes = reading.slopes[:, np.array(kept[1:]) - 1]
    return found | {"slopes": slopes}
