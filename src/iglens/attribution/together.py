"""Several texts read as one: one streamed pass over the vocabulary for all of them.

The head's weights are read from memory once per pass. For one short text that is most
of what a pass costs, so texts are put side by side, read, and taken apart again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from ..errors import ArgumentError
from ..trace import Trace
from .path import Path
from .rows import Rows


@dataclass(frozen=True, eq=False)
class Together:
    """Paths of several texts as one path, and where each text's rows are in it.

    Attributes:
        path: All of them; its trace has the tokens of the first text alone, since
            nothing is read of them.
        rows: What is explained, of all texts.
        rows_of: The rows of each text.
    """

    path: Path
    rows: Rows
    rows_of: tuple[slice, ...]

    @classmethod
    def of(cls, paths: Sequence[Path], rows: Sequence[Rows]) -> "Together":
        """Put texts side by side.

        Raises:
            ArgumentError: If they are not read alike, or are taken apart inside.
        """
        n_positions = [len(path.trace.positions) for path in paths]
        if len(paths) > 1:
            _check_alike(paths)
            path, every = _joined_path(paths), _joined_rows(rows, n_positions)
        else:
            (path,), (every,) = paths, rows
        counts = [len(each.targets) for each in rows]
        return cls(path, every, _slices(counts))

    @staticmethod
    def can(paths: Sequence[Path]) -> bool:
        """Whether these texts can be read as one."""
        return not any(path.parted for path in paths)


def _check_alike(paths: Sequence[Path]) -> None:
    """Refuse texts of several models, paths or lenses."""
    first = paths[0]
    for path in paths:
        same = (
            path.indices == first.indices
            and path.trace.layers == first.trace.layers
            and path.trace.readout is first.trace.readout
            and path.lens is first.lens
            and path.baseline.kind == first.baseline.kind
        )
        if not same or not Together.can([path]):
            raise ArgumentError(
                "These texts cannot be read together: that takes traces of one "
                "decoder, through whole layers, with the same layers, lens and kind "
                "of baseline."
            )


def _joined_path(paths: Sequence[Path]) -> Path:
    """One path whose positions are those of all."""
    traces, start = [path.trace for path in paths], paths[0].baseline
    if start.states is not None:
        states = [path.baseline.states for path in paths]
        start = replace(start, states=torch.cat([s for s in states if s is not None]))
    return replace(paths[0], trace=_joined_trace(traces), baseline=start)


def _joined_trace(traces: Sequence[Trace]) -> Trace:
    """All positions after one another."""
    logits = [trace.logits for trace in traces if trace.logits is not None]
    return replace(
        traces[0],
        positions=torch.cat([trace.positions for trace in traces]),
        states=torch.cat([trace.states for trace in traces], 1),
        causal_mean=torch.cat([trace.causal_mean for trace in traces]),
        logits=torch.cat(logits) if len(logits) == len(traces) else None,
    )


def _joined_rows(rows: Sequence[Rows], n_positions: Sequence[int]) -> Rows:
    """What is explained, at the positions of the joined trace."""
    slots = max(each.tokens.shape[1] for each in rows)
    first = [0, *accumulate(n_positions)]
    moved = zip(rows, first, strict=False)
    return Rows(
        tuple(target for each in rows for target in each.targets),
        torch.cat([each.place + start for each, start in moved]),
        torch.cat([_widened(each.tokens, slots, -1) for each in rows]),
        torch.cat([_widened(each.chosen, slots, False) for each in rows]),
        torch.cat([_widened(each.against, slots, False) for each in rows]),
        tuple(scalar for each in rows for scalar in each.scalars),
    )


def _widened(table: Tensor, slots: int, filling: int | bool) -> Tensor:
    """A table with columns of nothing up to so many."""
    missing = slots - table.shape[1]
    return torch.nn.functional.pad(table, (0, missing), value=filling)


def _slices(counts: Sequence[int]) -> tuple[slice, ...]:
    """Where each of several runs of rows is when they follow each other."""
    ends = list(accumulate(counts))
    return tuple(slice(end - n, end) for end, n in zip(ends, counts, strict=True))
