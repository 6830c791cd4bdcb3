"""What a segment consists of, at one level below the parts of a block."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import ArgumentError
from ..inside import Mixture, Writing
from ..inside.directions import Directions
from .path import Block, Level, Path


@dataclass(frozen=True, eq=False)
class Shares:
    """What the parts of one kind have of something that is linear in gradients.

    Attributes:
        kind: What they are.
        values: Their shares.
        indices: Their numbers, the same for all rows or for each; -1 without one.
        sources: The tokens they read from, likewise; -1 where they read from none.
        router: The weight that a router gave them; None where there is none.
    """

    kind: str
    values: Float[Tensor, "rows parts"]
    indices: Int[np.ndarray, "#rows parts"]
    sources: Int[np.ndarray, "#rows parts"]
    router: Float[np.ndarray, "rows parts"] | None = None

    @classmethod
    def numbered(cls, kind: str, values: Float[Tensor, "rows parts"]) -> "Shares":
        """Parts that are counted from 0."""
        indices = np.arange(values.shape[1])[None]
        return cls(kind, values, indices, np.full_like(indices, -1))

    @classmethod
    def single(cls, kind: str, values: Float[Tensor, " rows"]) -> "Shares":
        """One part without a number."""
        return cls(kind, values[:, None], np.array([[-1]]), np.array([[-1]]))

    def blank(self, place: Int[np.ndarray, " rows"]) -> "Shares":
        """The same parts with zeros, for rows that each are like one of these."""
        zeros = self.values.new_zeros(len(place), self.values.shape[1])
        indices, sources = (
            each if len(each) == 1 else each[place]
            for each in (self.indices, self.sources)
        )
        router = None if self.router is None else self.router[place]
        return Shares(self.kind, zeros, indices, sources, router)

    def largest(self, top: int | None) -> "Shares":
        """The largest of every row, largest first; all in order without a limit."""
        if top is None or top >= self.values.shape[1]:
            return self
        sizes = self.values.abs().nan_to_num()
        kept = sizes.topk(top, dim=1).indices
        at, shape = kept.cpu().numpy(), tuple(self.values.shape)

        def taken(numbers: np.ndarray) -> np.ndarray:
            return np.take_along_axis(np.broadcast_to(numbers, shape), at, 1)

        return Shares(
            self.kind,
            self.values.gather(1, kept),
            taken(self.indices),
            taken(self.sources),
            None if self.router is None else taken(self.router),
        )


@dataclass(frozen=True, eq=False)
class Opening:
    """A part of a block that is opened.

    Attributes:
        segment: Its index on the path.
        block: The block.
        part: Which of its parts.
        writing: How its update is written.
        update: The update, where `writing` does not know it.
    """

    segment: int
    block: Block
    part: int
    writing: Writing | Mixture | Directions
    update: Float[Tensor, "rows d_model"] | None = None

    @property
    def strokes(self) -> list[tuple[int, int, float]]:
        """(start, end, weight), counted among all states that are read."""
        first, parts = self.block.start, self.block.parts
        found = [(0, 1, 1.0)] if parts is None else parts.strokes(self.part)
        return [(first + start, first + end, weight) for start, end, weight in found]

    def n_parts(self, by: Level) -> int:
        """About how many numbers per row its shares are."""
        writing = self.writing
        if isinstance(writing, Mixture):
            return writing.ids.shape[1]
        if isinstance(writing, Directions):
            return len(writing.vectors)
        attended = writing.attended
        if by == "source" and not isinstance(attended, str):
            return attended.n_heads * attended.values.shape[1]
        return writing.taken.shape[1]

    def shares(
        self, gradient: Float[Tensor, "rows d_model"], by: Level
    ) -> list[Shares]:
        """Shares of everything inside, for one gradient per traced row.

        They add up to the product of gradient and update, but for rounding.
        """
        if isinstance(self.writing, Mixture):
            return _experts(self.writing, gradient)
        if isinstance(self.writing, Directions):
            own = self.writing.shares(gradient)
            assert self.update is not None  # directions come with it
            missed = (gradient * self.update.to(gradient)).sum(1) - own.sum(1)
            return [Shares.numbered("direction", own), Shares.single("error", missed)]
        rest = self.writing.offsets(gradient).items()
        fixed = [Shares.single(kind, values) for kind, values in rest]
        if by == "neuron":
            neurons = self.writing.neurons(gradient)
            return [Shares.numbered("neuron", neurons), *fixed]
        heads = self.writing.heads(gradient)
        if by == "head":
            return [Shares.numbered("head", heads), *fixed]
        return [*_read(self.writing.sources(gradient), heads), *fixed]


def _experts(mixture: Mixture, gradient: Float[Tensor, "rows d_model"]) -> list[Shares]:
    """What the experts give that the router chose at each row, and what else is."""
    slots = mixture.experts(gradient)
    ids = mixture.ids.cpu().numpy()
    router = mixture.weights.double().cpu().numpy()
    besides = mixture.others(gradient, slots)
    return [
        Shares("expert", slots, ids, np.full_like(ids, -1), router),
        Shares.single("besides experts", besides),
    ]


def _read(
    read: Float[Tensor, "rows heads tokens"], heads: Float[Tensor, "rows heads"]
) -> list[Shares]:
    """What heads read from tokens, and what they gave besides."""
    n_heads, n_tokens = read.shape[1:]
    pairs = np.indices((n_heads, n_tokens)).reshape(2, -1)
    besides = heads - read.sum(2)
    return [
        Shares("source", read.flatten(1), pairs[:1], pairs[1:]),
        Shares.numbered("head bias", besides),
    ]


def openings(path: Path, by: Level) -> tuple[list[Opening], dict[int, str]]:
    """Which segments of a path are opened, and why others are not.

    Raises:
        ArgumentError: If none is.
    """
    found, reasons, segment = [], {}, 0
    for block in path.blocks:
        if block.parts is None:
            reasons[segment] = _why_whole(path, block)
            segment += 1
            continue
        written = block.parts.writings or ("the trace was not made for it",)
        for part in range(len(block.parts.names)):
            writing = written[min(part, len(written) - 1)]
            if isinstance(writing, str):
                reasons[segment] = writing
            elif (reason := _closed(writing, by)) is not None:
                reasons[segment] = reason
            else:
                found.append(Opening(segment, block, part, writing))
            segment += 1
    if not found:
        why = min(reasons.values(), key=lambda reason: reason == _AT_BASELINE)
        raise ArgumentError(f"Nothing on this path can be opened by {by}: {why}.")
    return found, reasons


_AT_BASELINE = "it starts at a baseline, which no block was given"
"""Why the segment before the first layer is not opened, whatever the model."""


def _why_whole(path: Path, block: Block) -> str:
    """Why a block has no parts on a path."""
    if block.after is None:
        return _AT_BASELINE
    single = block.after == block.layer - 1
    usual = "the trace does not hold it" if single else "layers are merged"
    return path.trace.whole.get(block.layer, usual)


Named = Mapping[tuple[int, str], Directions]
"""Directions by layer and part, "block" for the whole layer."""


def directed(path: Path, directions: Named) -> list[Opening]:
    """The segments that directions were given for.

    Raises:
        ArgumentError: If one is not on the path, or directions do not fit it.
    """
    raw, found, segment = path.raw_states(slice(None)), [], 0
    named = dict(directions)
    for block in path.blocks:
        whole = block.after == block.layer - 1
        names = ("block" if whole else "blocks",)
        for part, name in enumerate(block.parts.names if block.parts else names):
            given = named.pop((block.layer, name), None)
            if given is not None:
                given.check(*raw.shape[1:])
                opening = Opening(segment, block, part, given)
                start, end, _ = opening.strokes[0]
                found.append(replace(opening, update=raw[end] - raw[start]))
            segment += 1
    if named or not found:
        known = [(s.layer, s.part) for s in path.segments]
        raise ArgumentError(
            f"`directions` names {sorted(named)}; this path has {known[:4]} … "
            f"{known[-2:]}."
        )
    return found


def _closed(writing: Writing | Mixture, by: Level) -> str | None:
    """Why a part cannot be opened; None if it can."""
    if isinstance(writing, Mixture):
        return None if by == "neuron" else "it has experts, no heads"
    if by == "neuron":
        return None if writing.has_neurons else writing.neurons_reason or "no neurons"
    if writing.n_heads is None:
        return writing.heads_reason or "it has no heads"
    unread = by == "source" and isinstance(writing.attended, str)
    return str(writing.attended) if unread else None
