"""The record of what is inside segments, as it fills up segment by segment."""

import numpy as np
import torch
from jaxtyping import Float

from ..records.components import NUMBERED, Components
from .integral.averaged import TOLERANCE
from .opened import Shares
from .strokes import Opened, Question


class Table:
    """What was found inside the segments of some rows."""

    def __init__(
        self, question: Question, credits: Float[np.ndarray, "rows segments"]
    ) -> None:
        """Begin with every segment unopened: all of its credit is others'."""
        self.question, self.others = question, credits.copy()
        self.by = "direction" if question.directions else question.by
        n_text = len(question.path.trace.token_ids) if self.by == "source" else 0
        self.tokens = np.zeros((*credits.shape, n_text))
        self.certificate = np.full((3, *credits.shape), np.nan)
        self.n_parts = np.zeros(credits.shape[1], np.int64)
        self.pieces: list[tuple[int, Shares]] = []

    def put(self, segment: int, found: Opened) -> None:
        """Take in what is inside one segment."""
        certificate = (found.residual, found.disagreement, found.closed)
        for place, known in enumerate(certificate):
            self.certificate[place, :, segment] = known.cpu().numpy()
        for shares in found.shares:
            if shares.kind == "source":
                tokens = self.tokens[:, segment].T  # a view
                np.add.at(tokens, shares.sources[0], shares.values.T.cpu().numpy())
            kept = shares
            if shares.kind in NUMBERED:
                self.n_parts[segment] += shares.values.shape[1]
                kept = shares.largest(self.question.top)
            self._add(segment, kept)

    def put_translations(
        self, translations: Float[np.ndarray, "rows segments"]
    ) -> None:
        """Take in what the lens moved, where segments are opened."""
        opened = np.isfinite(self.certificate[0]).any(0)
        for segment in np.flatnonzero(opened).tolist():
            moved = torch.from_numpy(translations[:, segment])
            self._add(segment, Shares.single("translation", moved))

    def _add(self, segment: int, shares: Shares) -> None:
        """Parts whose credit is no longer others'."""
        self.pieces.append((segment, shares))
        self.others[:, segment] -= shares.values.sum(1).cpu().numpy()

    def record(self, reasons: dict[int, str]) -> Components:
        """What was taken in, parts in the order of segments."""
        pieces = sorted(self.pieces, key=lambda piece: piece[0])
        sizes = [shares.values.shape[1] for _, shares in pieces]
        kinds = [shares.kind for _, shares in pieces]
        return Components(
            by=self.by,
            segments=np.repeat([segment for segment, _ in pieces], sizes),
            kinds=tuple(np.repeat(kinds, sizes).tolist()),
            indices=self._every([shares.indices for _, shares in pieces]),
            sources=self._every([shares.sources for _, shares in pieces]),
            credits=np.concatenate([s.values.cpu().numpy() for _, s in pieces], 1),
            others=self.others,
            n_parts=self.n_parts,
            residual=self.certificate[0],
            disagreement=self.certificate[1],
            closed=self.certificate[2],
            tolerance=TOLERANCE,
            tokens=self.tokens if self.by == "source" else None,
            router_weights=self._router([shares for _, shares in pieces]),
            reasons=reasons,
        )

    def _every(self, numbers: list[np.ndarray]) -> np.ndarray:
        """Numbers of every row and part; one row for all where they do not differ."""
        n_rows = len(self.others)
        if all(len(each) == 1 for each in numbers):
            joined = np.concatenate(numbers, 1)
            return np.broadcast_to(joined, (n_rows, joined.shape[1]))
        shapes = [(n_rows, each.shape[1]) for each in numbers]
        every = [np.broadcast_to(e, s) for e, s in zip(numbers, shapes, strict=True)]
        return np.concatenate(every, 1)

    def _router(self, pieces: list[Shares]) -> np.ndarray | None:
        """The router's weights, NaN for parts it does not choose; None without one."""
        if all(shares.router is None for shares in pieces):
            return None
        none = [np.full(tuple(shares.values.shape), np.nan) for shares in pieces]
        known = (shares.router for shares in pieces)
        return np.concatenate(
            [n if k is None else k for n, k in zip(none, known, strict=True)], 1
        )
