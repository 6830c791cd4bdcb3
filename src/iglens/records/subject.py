"""What the rows and segments of a result are, and where it comes from."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from .attribution import Attribution
from .flag import Flag
from .provenance import Provenance, ReadoutInfo
from .segment import Segment
from .target import Target


@dataclass(frozen=True, eq=False)
class Subject:
    """What a result besides the attribution is about.

    Attributes:
        token_ids: Every token of the text.
        token_texts: The same tokens, decoded one by one.
        positions: Index of the predicted token of every row.
        targets: What is explained, one per row.
        segments: The steps of the path.
        baseline_kind: Name of the first point.
        lens: Name of the translators; "logit" for none.
        fidelity: Total variation between readout and model, per row; NaN if unknown.
        readout: How the states were read and verified.
        provenance: Where all this comes from.
        flags: Cells that are not numbers to rely on.
        warnings: Sentences a reader must see.
    """

    token_ids: Int[np.ndarray, " text"]
    token_texts: tuple[str, ...]
    positions: Int[np.ndarray, " rows"]
    targets: tuple[Target, ...]
    segments: tuple[Segment, ...]
    baseline_kind: str
    lens: str
    fidelity: Float[np.ndarray, " rows"]
    readout: ReadoutInfo
    provenance: Provenance
    flags: tuple[Flag, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    @classmethod
    def of(cls, attribution: Attribution) -> "Subject":
        """What an attribution is about."""
        names = cls.__dataclass_fields__
        return cls(**{name: getattr(attribution, name) for name in names})

    @property
    def n_rows(self) -> int:
        """Number of explained (position, target) pairs."""
        return len(self.positions)

    @property
    def layers(self) -> tuple[int, ...]:
        """Layer each segment ends at."""
        return tuple(segment.layer for segment in self.segments)
